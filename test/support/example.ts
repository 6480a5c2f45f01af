import { join } from 'node:path';
import { type Running, start } from './cli.ts';
import { ROOT } from './code-blocks.ts';
import { eventually } from './eventually.ts';

export interface Example extends Running {
  readonly url: string;
}

/** Starts one of the servers under examples/ on a free port, and waits until it says where. */
export async function startExample(name: string, env: Record<string, string>): Promise<Example> {
  const running = start([], {
    env: { PORT: '0', ...env },
    through: [process.execPath, join(ROOT, 'examples', name, 'server.mjs')],
  });
  const where = () => /listening at (http:[\w./:]+)/.exec(running.stdout())?.[1];
  const ended = running.finished.then(({ stderr }) => {
    throw new Error(`it did not start: ${stderr}`);
  });
  await Promise.race([eventually(() => where() !== undefined, 'it listens'), ended]);
  ended.catch(() => {
    // It has started: how it ends is for the test to see.
  });
  return { ...running, url: where() ?? '' };
}
