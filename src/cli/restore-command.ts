import { Command } from 'commander';
import { restore } from '../db/restore.ts';
import { interruptible } from './interruptible.ts';
import { startCopyProgress } from './progress.ts';
import { size } from './text.ts';

/** `sluice restore FILE SOURCE` */
export function restoreCommand(): Command {
  return new Command('restore')
    .description('put a backup in the place of a database that no process has open, and never replay its old log')
    .argument('<FILE>', 'the database file; what is in it, and in its log, is gone afterwards')
    .argument('<SOURCE>', 'the backup, or any database file that was closed; it stays as it is')
    .option('--json', 'one JSON object for machines: path, from, bytes, appliedSeq, epoch, durationMs', false)
    .addHelpText(
      'after',
      `
SOURCE is copied and checked first, then the copy takes the place of FILE in one step. FILE may be damaged, or not be there.
The log of FILE is set aside by the next open, as files with .set-aside in their names, which can be deleted.
The exit code is 0 when it is done, and otherwise 1: then FILE is as it was.`,
    )
    .action(async (file: string, source: string, { json }: { json: boolean }) => {
      const progress = startCopyProgress();
      const result = await interruptible((signal) =>
        restore(file, source, { signal, onProgress: (copied) => progress.update(copied) }),
      ).finally(() => progress.stop());
      const { path, from, bytes, epoch } = result;
      console.log(json ? JSON.stringify(result) : `${path}: restored from ${from}, ${size(bytes)}, epoch ${epoch}`);
    });
}
