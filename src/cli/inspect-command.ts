import { Command } from 'commander';
import { type InspectReport, inspect } from '../db/inspect.ts';
import { counted, size, time } from './text.ts';
import { aligned } from './text-table.ts';

/** `sluice inspect FILE` */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description('say what is in a database file and its log, and what open would do, without changing anything')
    .argument('<FILE>', 'the database file; it may be open in another process')
    .option('--json', 'one JSON object for machines instead of text', false)
    .addHelpText(
      'after',
      `
Fields of --json (bytes are counted, times are milliseconds since 1970, null is what there is none of):
  path                the database file
  database            bytes, walBytes, pageSize, sqliteVersion
  state               databaseId, epoch, format, watermark
  deadLetters         count, oldest: {id, seq, acceptedAt, firstFailedAt}
  process             open, owner: {pid, host, startedAt}
  log                 directory, bytes, segments: [], otherFiles: [{name, bytes, kind: corrupt|set-aside|other}]
  log.segments[]      name, number, bytes, firstSeq, lastSeq, frames, writes, validBytes, tornBytes, damage, own
  recovery            null while a process has the database open, or outcome: nothing|recover|refuse, writes, cutBytes,
                      setAside: [name], removed: [name], refusal: {code, message},
                      keepPrefix: {writes, cutBytes, setAside} (what recovery: 'keep-prefix' would do)

The exit code is 0 also where open would refuse: 'sluice verify' judges. It is 1 where there is nothing to inspect.`,
    )
    .action(async (file: string, { json }: { json: boolean }) => {
      const report = await inspect(file);
      console.log(json ? JSON.stringify(report, null, 2) : textOf(report));
    });
}

function textOf({ path, database, state, deadLetters, process, log, recovery }: InspectReport): string {
  const { oldest } = deadLetters;
  const { owner } = process;
  const wal = database.walBytes === null ? 'no -wal beside it' : `-wal ${size(database.walBytes)}`;
  const since = oldest === null ? '' : `, the oldest (${oldest.id}) refused first at ${time(oldest.firstFailedAt)}`;
  const who =
    owner === null ? 'nobody knows by whom' : `process ${owner.pid} on ${owner.host}, since ${owner.startedAt}`;
  const facts = aligned([
    ['database', path],
    ['', `${size(database.bytes)}, pages of ${database.pageSize}, ${wal}, read with SQLite ${database.sqliteVersion}`],
    ['id', `${state.databaseId}, epoch ${state.epoch}, store format ${state.format}`],
    ['watermark', `write ${state.watermark}: all up to it are applied or dead`],
    ['dead letters', `${deadLetters.count}${since}`],
    ['process', process.open ? `open: ${who}` : 'no process has it open'],
    ['log', `${log.directory}: ${counted(log.segments.length, 'segment')}, ${size(log.bytes)}`],
  ]);
  return [...facts, ...segmentLines(log.segments), ...otherLines(log.otherFiles), ...recoveryLines(recovery)].join(
    '\n',
  );
}

function segmentLines(segments: InspectReport['log']['segments']): string[] {
  if (segments.length === 0) return [];
  const head = ['segment', 'bytes', 'first', 'last', 'frames', 'writes', 'valid to', 'torn', ''];
  const rows = segments.map((segment) => [
    segment.name,
    segment.bytes ?? '?',
    segment.firstSeq ?? '-',
    segment.lastSeq ?? '-',
    segment.frames,
    segment.writes,
    segment.validBytes,
    segment.tornBytes,
    remarkOn(segment),
  ]);
  return ['', ...aligned([head, ...rows]).map((line) => `  ${line}`)];
}

function remarkOn({ damage, own, frames }: InspectReport['log']['segments'][number]): string {
  if (damage !== null) return `DAMAGED: ${damage}`;
  if (own === false) return 'of another database or epoch';
  return own === null || frames === 0 ? 'empty' : 'sound';
}

function otherLines(files: InspectReport['log']['otherFiles']): string[] {
  if (files.length === 0) return [];
  const rows = files.map(({ name, bytes, kind }) => [name, bytes, kind === 'set-aside' ? 'set aside' : kind]);
  return ['', 'Other files in the log folder, which Sluice leaves alone:', ...aligned(rows).map((line) => `  ${line}`)];
}

function recoveryLines(recovery: InspectReport['recovery']): string[] {
  if (recovery === null) return ['', 'The log is being written: what a recovery would do cannot be said.'];
  const { outcome, writes, cutBytes, setAside, removed, refusal, keepPrefix } = recovery;
  if (outcome === 'nothing') return ['', 'Open would find nothing to recover.'];
  if (outcome === 'recover') {
    const lines = [`replay ${counted(writes, 'write')}`];
    if (cutBytes > 0) lines.push(`cut ${counted(cutBytes, 'byte')} that were never synced off the log`);
    if (setAside.length > 0) lines.push(`set aside, as of another database: ${setAside.join(', ')}`);
    if (removed.length > 0) lines.push(`delete, as nothing was ever in it: ${removed.join(', ')}`);
    return ['', 'Open would', ...lines.map((line) => `  ${line}`)];
  }
  const lines = ['', `Open would refuse (${refusal?.code}) and change nothing:`, `  ${refusal?.message}`];
  if (keepPrefix !== null) {
    const { writes: kept, setAside: aside } = keepPrefix;
    lines.push(
      `With recovery: 'keep-prefix' it would replay ${counted(kept, 'write')} and set aside ${aside.join(', ')}.`,
    );
  }
  return lines;
}
