/** Where it was measured, and what. */
import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import Sqlite from 'better-sqlite3';
import { diskSyncUs, FRAME_BYTES } from './disk.ts';
import { spreadOf } from './summary.ts';

export interface Machine {
  readonly commit: string;
  /** Whether the code was not quite that of the commit. */
  readonly dirty: boolean;
  readonly node: string;
  readonly sqlite: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  /** Median time of write+fdatasync of one small frame. */
  readonly diskSyncUs: number;
}

export function thisMachine(): Machine {
  const memory = new Sqlite(':memory:');
  const sqlite = memory.prepare('SELECT sqlite_version()').pluck().get() as string;
  memory.close();
  return {
    commit: git('rev-parse', '--short=10', 'HEAD'),
    dirty: git('status', '--porcelain', '--', '.', ':!bench/results') !== '',
    node: process.version,
    sqlite,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    diskSyncUs: Math.round(diskSyncUs()),
  };
}

function git(...args: string[]): string {
  return execFileSync('git', args, { encoding: 'utf8' }).trim();
}

export function machineText({ commit, dirty, node, sqlite, cpu, cores, memoryGiB }: Machine): string {
  const code = `commit ${commit}${dirty ? ' and changes' : ''}`;
  return `${code}, Node.js ${node.slice(1)}, SQLite ${sqlite}, ${cores} cores (${cpu}), ${memoryGiB} GiB`;
}

/** Of one run, or of several. */
export function diskText(machines: readonly Machine[]): string {
  const { least, most } = spreadOf(machines.map((machine) => machine.diskSyncUs));
  return `write+fdatasync of ${FRAME_BYTES} B in ${least === most ? least : `${least} to ${most}`} µs`;
}
