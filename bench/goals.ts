/** What Sluice is to reach, as ratios to what others reach in the same rounds. */
import type { Figure } from './contest.ts';

export interface Goal {
  readonly what: string;
  readonly against: string;
  /** Each must reach it; the one that is farthest from it is told. */
  readonly pairs: readonly Pair[];
  /** Nothing where the ratio is only told. */
  readonly bound?: Bound;
}

/** A figure of one of ours, by that of the best of `theirs` in the same round; or the figure itself, where there are none. */
export interface Pair {
  readonly case: string;
  readonly figure: Figure;
  readonly ours: string;
  readonly theirs: readonly string[];
}

export type Bound = { readonly atLeast: number } | { readonly atMost: number } | { readonly below: number };

/** The default of `staging.maxBytes`. */
export const STAGING_MIB = 128;

export const GOALS: readonly Goal[] = [
  {
    what: 'unique objects, acknowledged at `sync`',
    against: 'lmdb until `flushed`',
    pairs: [acknowledged('unique', 'sluice sync', 'lmdb flushed')],
    bound: { atLeast: 1.2 },
  },
  {
    what: 'unique objects, acknowledged at `os`',
    against: 'lmdb until `committed`',
    pairs: [acknowledged('unique', 'sluice os', 'lmdb committed')],
    bound: { atLeast: 1 },
  },
  {
    what: 'hot keys, acknowledged at `sync`',
    against: 'lmdb until `flushed`',
    pairs: [acknowledged('hot', 'sluice sync', 'lmdb flushed')],
    bound: { atLeast: 1.5 },
  },
  {
    what: 'any write case, acknowledged as safely as there',
    against: 'classic-level, keyv, one-row transactions',
    pairs: [
      ...['unique', 'hot', 'strings-100', 'strings-4k'].flatMap((name) => [
        acknowledged(name, 'sluice sync', 'classic-level sync'),
        acknowledged(name, 'sluice os', 'classic-level no sync'),
        acknowledged(name, 'sluice sync', 'keyv'),
        acknowledged(name, 'sluice sync', 'better-sqlite3 one row'),
      ]),
      ...['rows-3', 'rows-10'].map((name) => acknowledged(name, 'sluice sync', 'better-sqlite3 one row')),
    ],
    bound: { atLeast: 2 },
  },
  {
    what: 'objects applied, sustained',
    against: 'the best loop of better-sqlite3',
    pairs: [applied('sustained', ['50000', '50000, worker', '50000, worker, rare checkpoints'])],
    bound: { atLeast: 0.95 },
  },
  {
    what: 'rows applied, sustained',
    against: 'the best loop of better-sqlite3',
    pairs: [applied('sustained-rows', ['10000', '50000', '50000, rare checkpoints'])],
    bound: { atLeast: 0.95 },
  },
  {
    what: 'rows of three columns, acknowledged at `sync`',
    against: 'better-sqlite3, 10,000 a transaction',
    pairs: [acknowledged('rows-3', 'sluice sync', 'better-sqlite3 10000')],
    bound: { atLeast: 2 },
  },
  {
    what: '`get` from staging or cache',
    against: 'lmdb `get`',
    pairs: ['sluice staging', 'sluice cache'].map((ours) => get(ours, 'lmdb')),
    bound: { atLeast: 1.5 },
  },
  {
    what: '`get` from SQLite, synchronous',
    against: 'better-sqlite3, prepared statement',
    pairs: [get('sluice SQLite', 'better-sqlite3')],
    bound: { atLeast: 0.9 },
  },
  {
    what: 'event-loop delay p99, full ingest',
    against: 'lmdb',
    pairs: [{ case: 'unique', figure: 'delayP99Ms', ours: 'sluice sync', theirs: ['lmdb flushed'] }],
    bound: { below: 1 },
  },
  {
    what: 'event-loop delay p99, full ingest',
    against: 'ms',
    pairs: [{ case: 'unique', figure: 'delayP99Ms', ours: 'sluice sync', theirs: [] }],
    bound: { below: 10 },
  },
  {
    what: 'one awaited write at a time, median time',
    against: 'write+fdatasync of the machine',
    pairs: [latency('write+fdatasync')],
    bound: { atMost: 1.5 },
  },
  {
    what: 'one awaited write at a time, median time',
    against: 'the same through callbacks',
    pairs: [latency('write+fdatasync, callbacks')],
  },
  {
    what: 'recovery',
    against: 'writes/s',
    pairs: [{ case: 'recovery', figure: 'recoveredPerSecond', ours: 'sluice sync', theirs: [] }],
    bound: { atLeast: 1_000_000 },
  },
  {
    what: `peak RSS over 10 M writes, staging of ${STAGING_MIB} MiB`,
    against: 'MiB',
    pairs: [{ case: 'memory', figure: 'peakRssMiB', ours: 'sluice sync', theirs: [] }],
    bound: { atMost: STAGING_MIB + 150 },
  },
];

function acknowledged(name: string, ours: string, theirs: string): Pair {
  return { case: name, figure: 'acknowledgedPerSecond', ours, theirs: [theirs] };
}

/** With the loops that can be the best: `npm run bench:full` has the others, which take long, and shows that they are not. */
function applied(name: string, loops: readonly string[]): Pair {
  const theirs = loops.map((loop) => `better-sqlite3 ${loop}`);
  return { case: name, figure: 'appliedPerSecond', ours: 'sluice sync', theirs };
}

function get(ours: string, theirs: string): Pair {
  return { case: 'reads', figure: 'getPerSecond', ours, theirs: [theirs] };
}

function latency(theirs: string): Pair {
  return { case: 'latency', figure: 'p50Us', ours: 'sluice sync', theirs: [theirs] };
}

/** Whether a goal asks for what this contestant does in this case. */
export function isAskedFor(caseName: string, contestant: string): boolean {
  return GOALS.some(({ pairs }) =>
    pairs.some((pair) => pair.case === caseName && [pair.ours, ...pair.theirs].includes(contestant)),
  );
}
