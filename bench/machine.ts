/** Where it was measured, and what. */
import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import Sqlite from 'better-sqlite3';
import { diskSyncUs } from './disk.ts';

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

export function machineText(machine: Machine): string {
  const { commit, dirty, node, sqlite, cpu, cores, memoryGiB } = machine;
  return (
    `commit ${commit}${dirty ? ' and changes' : ''}, Node.js ${node.slice(1)}, SQLite ${sqlite}, ${cores} cores (${cpu}), ` +
    `${memoryGiB} GiB, write+fdatasync of 180 B ${machine.diskSyncUs} µs`
  );
}
