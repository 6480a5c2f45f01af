import { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import type { BackupResult } from '../db/backup.ts';
import type { Database } from '../db/database.ts';
import { inspect } from '../db/inspect.ts';
import { open } from '../db/open.ts';
import { ENCRYPTION_HELP, encryptionOfEnvironment } from './encryption.ts';
import { interruptible } from './interruptible.ts';
import { startCopyProgress } from './progress.ts';
import { counted, size } from './text.ts';

interface Given {
  readonly overwrite: boolean;
  readonly refuseDeadLetters: boolean;
  readonly json: boolean;
}

/** `sluice backup FILE DEST` */
export function backupCommand(): Command {
  return new Command('backup')
    .description('write a checked copy of a database that no other process has open, with what its log holds')
    .argument('<FILE>', 'the database file')
    .argument('<DEST>', 'the file to write')
    .option('--overwrite', 'replace DEST where it is there, when the copy is complete', false)
    .option('--refuse-dead-letters', 'no copy where there are writes that SQLite has refused', false)
    .option('--json', 'one JSON object for machines instead of text: path, bytes, appliedSeq, durationMs', false)
    .addHelpText(
      'after',
      `
The log is applied first. A program that has the database open makes its backups itself, while it works: db.abackup().
The exit code is 0 when the copy is complete, checked and on the disk, and otherwise 1: then DEST is as it was.
${ENCRYPTION_HELP}`,
    )
    .action(async (file: string, destination: string, given: Given) => {
      const result = await backUp(file, destination, given);
      const { path, bytes, appliedSeq } = result;
      console.log(
        given.json ? JSON.stringify(result) : `${path}: ${size(bytes)}, everything up to write ${appliedSeq}`,
      );
    });
}

async function backUp(
  file: string,
  destination: string,
  { overwrite, refuseDeadLetters }: Given,
): Promise<BackupResult> {
  // Whoever backs up a file that is not there, or not Sluice's, has made a mistake: it must not be made so.
  await inspect(file);
  const db = await openToRead(file);
  const progress = startCopyProgress();
  try {
    await applied(db);
    return await interruptible((signal) =>
      db.abackup(destination, {
        overwrite,
        deadLetters: refuseDeadLetters ? 'refuse' : 'include',
        signal,
        onProgress: (copied) => progress.update(copied),
      }),
    );
  } finally {
    progress.stop();
    await db.close();
  }
}

async function openToRead(file: string): Promise<Database> {
  try {
    return await open(file, {
      // No table of anybody: the usual one may have another shape.
      table: 'sluice backup',
      closeTimeoutMs: 1_000,
      encryption: encryptionOfEnvironment(),
      dlq: { maxEntries: Number.MAX_SAFE_INTEGER, maxBytes: Number.MAX_SAFE_INTEGER },
    });
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'SLUICE_LOCKED') throw error;
    throw new SluiceError(error.code, `${error.message} A program backs up what it has open with db.abackup().`, {
      cause: error,
    });
  }
}

/** A copy without what the log holds would not be one of all that was accepted. */
async function applied(db: Database): Promise<void> {
  db.on('failure', () => {});
  db.on('dead-letter', () => {});
  const stalled = new Promise<Error>((resolve) => {
    db.once('stall', ({ error }) => resolve(error));
  });
  const obstacle = await Promise.race([db.aflush().then(() => undefined), stalled]);
  const { deadLettered, pending } = db.stats();
  if (deadLettered > 0) console.error(`${counted(deadLettered, 'write')} of the log became dead letters`);
  if (obstacle === undefined) return;
  throw new SluiceError(
    'SLUICE_STORE',
    `${counted(pending, 'write')} of the log cannot be applied: ${obstacle.message}. They stay in the log; see sluice dlq take`,
    { cause: obstacle },
  );
}
