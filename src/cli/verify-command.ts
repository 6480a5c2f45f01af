import { stat } from 'node:fs/promises';
import { Command } from 'commander';
import { type VerifyReport, verify } from '../db/inspect.ts';
import { counted, size } from './text.ts';
import { aligned } from './text-table.ts';

/** From here on it takes long enough that somebody may wonder. */
const LARGE_BYTES = 256 * 1024 * 1024;
const LINE_MS = 5_000;

/** `sluice verify FILE` */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('check a database file and its log without changing anything; exit code 1 if something is wrong')
    .argument('<FILE>', 'the database file; of one that is open in another process, the end of the log is not judged')
    .option('--json', 'one JSON object for machines instead of text', false)
    .addHelpText(
      'after',
      `
Checked are the checksum and number of every frame, the log against the watermark, SQLite's integrity_check, the state
row, and every dead letter. An unsynced tail, as a crash leaves it, is a note and no finding.

Fields of --json:
  path       the database file
  ok         whether there is no finding
  open       whether a process has the database open
  findings   [{kind, subject, message}], kind: integrity|state|dead-letter|header|frame|sequence|gap|format|unreadable,
             subject: name of a segment, id of a dead letter, or database
  notes      [text]
  checked    bytes, segments, frames, deadLetters

The exit code is 0 without and 1 with a finding, and 1 where there is nothing to verify.`,
    )
    .action(async (file: string, { json }: { json: boolean }) => {
      const stop = await sayThatItGoesOn(file);
      const report = await verify(file).finally(stop);
      console.log(json ? JSON.stringify(report, null, 2) : textOf(report));
      if (!report.ok) process.exitCode = 1;
    });
}

/** On standard error, of a large file: SQLite does not say how far its check is. */
async function sayThatItGoesOn(file: string): Promise<() => void> {
  const bytes = await stat(file).then(
    (found) => found.size,
    () => 0,
  );
  if (bytes < LARGE_BYTES) return () => undefined;
  const start = performance.now();
  console.error(`checking ${size(bytes)} …`);
  const timer = setInterval(() => {
    console.error(`still checking, for ${Math.round((performance.now() - start) / 1_000)} s`);
  }, LINE_MS);
  return () => clearInterval(timer);
}

function textOf({ path, ok, findings, notes, checked }: VerifyReport): string {
  const { bytes, segments, frames, deadLetters } = checked;
  const what = [
    size(bytes),
    `${counted(frames, 'frame')} in ${counted(segments, 'segment')}`,
    counted(deadLetters, 'dead letter'),
  ].join(', ');
  const rows = findings.map(({ kind, subject, message }) => [
    kind,
    kind === 'dead-letter' ? `entry ${subject}` : subject,
    message,
  ]);
  return [
    `${path}: ${ok ? 'sound' : counted(findings.length, 'finding')} (checked: ${what})`,
    ...aligned(rows).map((line) => `  ${line}`),
    ...notes.map((note) => `  note: ${note}`),
  ].join('\n');
}
