export { settle, stageCopy, swapIn } from './copy/replacing.ts';
export { Examination } from './examine/examination.ts';
export type { DatabaseChecks, DatabaseFacts, DeadLetterFacts } from './examine/examine-protocol.ts';
export { acquireLock, lastOwner, type Owner, type ProcessLock } from './lock.ts';
export { QueryConnection, type QueryResult, type ResultLimits } from './query.ts';
export type { Spawn } from './rpc.ts';
export { SqliteStore, type SqliteStoreOptions } from './sqlite-store.ts';
