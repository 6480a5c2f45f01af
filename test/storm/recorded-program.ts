import type { Durability } from 'sluicedb';

/** What the recorded process does, step by step. `wait`: it goes on when the step is acknowledged. */
export type Step =
  | { readonly do: 'open' | 'close' | 'die' | 'die in a commit' | 'flush' | 'backup' | 'restore' | 'restore closed' }
  | { readonly do: 'pause'; readonly ms: number }
  | { readonly do: 'execute'; readonly sql: string }
  | { readonly do: 'set'; readonly key: string; readonly value: unknown; readonly wait: boolean }
  | { readonly do: 'delete'; readonly key: string; readonly wait: boolean }
  | { readonly do: 'append'; readonly n: number; readonly wait: boolean }
  /** A write that SQLite refuses for good. */
  | { readonly do: 'poison'; readonly key: string; readonly wait: boolean }
  /** One transaction: a row, two keys that are always the same, and one that goes. */
  | { readonly do: 'group'; readonly n: number; readonly goes: string; readonly wait: boolean }
  /** A transaction of SQL: two rows whose sum is nothing. */
  | { readonly do: 'sql'; readonly n: number };

/** All that the database holds, in the order in which it came there. */
export interface Content {
  readonly keys: Readonly<Record<string, unknown>>;
  readonly rows: readonly number[];
  readonly ledger: readonly (readonly [n: number, amount: number])[];
  readonly guarded: readonly string[];
  readonly dead: readonly string[];
}

export const TABLES = [
  'CREATE TABLE IF NOT EXISTS guarded (key TEXT PRIMARY KEY, value TEXT CHECK (value <> \'"bad"\'))',
  'CREATE TABLE IF NOT EXISTS ledger (n INTEGER, amount INTEGER)',
] as const;

const VALUE_BYTES = 150;

/** So much that segments are rotated often, and the database has some pages. */
function textFor(n: number): string {
  return String(n).padEnd(VALUE_BYTES, 'abcdefghij');
}

/**
 * The steps of one process after the other. Some lives end by a kill, with writes that were not carried into SQLite or in the middle of
 * a commit, the others with a close. A backup is restored twice, under the open database and under the closed one, and writes follow
 * on it.
 */
export function livesFor(durability: Durability, random: () => number): Step[][] {
  const below = (limit: number) => Math.floor(random() * limit);
  let n = 0;
  const write = (): Step => {
    n++;
    const wait = random() < 0.4;
    const kind = below(12);
    if (kind < 4) return { do: 'append', n, wait };
    if (kind < 7) return { do: 'set', key: `k${below(20)}`, value: textFor(n), wait };
    if (kind < 8) return { do: 'delete', key: `k${below(20)}`, wait };
    if (kind < 10) return { do: 'group', n, goes: `k${below(20)}`, wait };
    if (kind < 11) return { do: 'poison', key: `p${n}`, wait };
    return random() < 0.4 ? { do: 'sql', n } : { do: 'append', n, wait };
  };
  const writes = (count: number): Step[] =>
    Array.from({ length: count }, () => {
      const luck = below(30);
      if (luck === 0) return [write(), { do: 'flush' } as const];
      return luck === 1 ? [write(), { do: 'pause', ms: 5 + below(60) } as const] : [write()];
    }).flat();
  /** Long enough for the interval to have passed. */
  const waits = (count: number): Step[] =>
    Array.from({ length: durability === 'interval' ? count : 0 }, () => [
      ...writes(3),
      { do: 'pause', ms: 180 } as const,
    ]).flat();
  const tables = TABLES.map((sql): Step => ({ do: 'execute', sql }));
  return [
    [
      { do: 'open' },
      ...tables,
      ...writes(30),
      { do: 'sql', n: ++n },
      { do: 'flush' },
      { do: 'pause', ms: 150 },
      ...waits(6),
      ...writes(25),
      { do: 'die' },
    ],
    [{ do: 'open' }, ...writes(30), { do: 'close' }],
    // What the commit is about has been logged, all of it.
    [{ do: 'open' }, ...writes(15), { do: 'die in a commit' }, { do: 'flush' }, { do: 'close' }],
    [
      { do: 'open' },
      { do: 'pause', ms: 50 },
      ...writes(8),
      { do: 'backup' },
      // Some of what has changed is in the database file by then, some in the WAL alone.
      ...writes(8),
      { do: 'pause', ms: 180 },
      ...writes(8),
      { do: 'restore' },
      ...writes(12),
      { do: 'die' },
    ],
    [
      { do: 'open' },
      ...writes(8),
      { do: 'close' },
      { do: 'restore closed' },
      { do: 'open' },
      ...writes(8),
      { do: 'close' },
    ],
  ];
}

/** What there is before the first step, and after each. */
export function contentsOf(steps: readonly Step[]): Content[] {
  let content: Content = { keys: {}, rows: [], ledger: [], guarded: [], dead: [] };
  let backup = content;
  const contents = [content];
  for (const step of steps) {
    if (step.do === 'backup') backup = content;
    content = step.do === 'restore' || step.do === 'restore closed' ? backup : after(content, step);
    contents.push(content);
  }
  return contents;
}

function after(content: Content, step: Step): Content {
  switch (step.do) {
    case 'set':
      return { ...content, keys: { ...content.keys, [step.key]: step.value } };
    case 'delete': {
      const { [step.key]: _, ...keys } = content.keys;
      return { ...content, keys };
    }
    case 'append':
      return { ...content, rows: [...content.rows, step.n] };
    case 'poison':
      return { ...content, dead: [...content.dead, step.key] };
    case 'group': {
      const { [step.goes]: _, ...keys } = content.keys;
      return { ...content, keys: { ...keys, left: step.n, right: step.n }, rows: [...content.rows, step.n] };
    }
    case 'sql':
      return { ...content, ledger: [...content.ledger, [step.n, step.n], [step.n, -step.n]] };
    default:
      return content;
  }
}
