import type { ValueCipher } from '../../../base/encryption/index.ts';
import type { Connection } from '../connection.ts';
import { DeadLetters } from '../dead-letters/dead-letters.ts';
import { Catalog } from './catalog.ts';
import { Executor } from './executor.ts';
import { Transactions } from './transaction.ts';

/** What stands on the writer's connection, shared by all that works on it. */
export interface WriterParts {
  readonly db: Connection;
  readonly owner: string;
  /** Of an encrypted database. */
  readonly cipher: ValueCipher | undefined;
  readonly catalog: Catalog;
  readonly executor: Executor;
  readonly dead: DeadLetters;
  readonly transactions: Transactions;
}

export function writerParts(db: Connection, owner: string, cipher: ValueCipher | undefined): WriterParts {
  const catalog = new Catalog(db);
  const dead = new DeadLetters(db, cipher);
  const transactions = new Transactions(db, {
    committed: () => dead.committed(),
    rolledBack: () => {
      dead.rolledBack();
      catalog.forget();
    },
  });
  return { db, owner, cipher, catalog, dead, transactions, executor: new Executor(db, catalog) };
}
