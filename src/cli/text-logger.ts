import type { Logger } from '../db/logging.ts';

const say = (_fields: unknown, message: string): void => console.error(`sluice: ${message}`);

/** The log of a database for people, on standard error. */
export const textLogger: Logger = { debug() {}, info: say, warn: say, error: say };
