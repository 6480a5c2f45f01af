import type { Database } from 'sluicedb';
import {
  ACCOUNTS,
  BALANCE,
  KEYS,
  type Known,
  PAIR_EVERY,
  POISON_EVERY,
  PRUNE_EVERY,
  STEPS_KEPT,
  WRITERS,
} from './protocol.ts';

export interface Found {
  /** The last number of each writer. */
  readonly last: number[];
  readonly increments: number;
  readonly rows: number;
  readonly deadLetters: number;
}

/** A promise that was broken. */
export class Wrong extends Error {
  override name = 'Wrong';
}

function insist(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Wrong(what());
}

/** No write may be in none of these, nor in two. */
export function checkBalance(db: Database): void {
  const { accepted, recovered, applied, coalesced, deadLettered, pending } = db.stats();
  insist(accepted + recovered === applied + coalesced + deadLettered + pending, () => {
    const books = { accepted, recovered, applied, coalesced, deadLettered, pending };
    return `the books do not balance: ${JSON.stringify(books)}`;
  });
}

/**
 * Reads all that there is, and holds it against what is known. What each writer wrote is a prefix of its numbers: rows
 * without a hole, none twice, and keys, pairs and dead letters that belong to the same end.
 */
export async function audit(db: Database, known: Known): Promise<Found> {
  checkBalance(db);
  await db.aflush();
  const last: number[] = [];
  let rows = 0;
  for (let writer = 0; writer < WRITERS; writer++) {
    const { count, distinct, least, greatest } = (await db.afetchOne<Record<string, number>>(
      `SELECT count(*) AS count, count(DISTINCT n) AS "distinct", coalesce(min(n), 1) AS least,
         coalesce(max(n), 0) AS greatest FROM readings WHERE writer = ?`,
      [writer],
    )) as { count: number; distinct: number; least: number; greatest: number };
    const of = `writer ${writer}: ${JSON.stringify({ count, distinct, least, greatest })}`;
    insist(count === distinct, () => `${of}: a row is there twice`);
    insist(count === greatest - least + 1, () => `${of}: a hole in the order`);
    insist(greatest >= (known.acked[writer] ?? 0), () => `${of}: acknowledged were ${known.acked[writer]}`);
    insist(least % PRUNE_EVERY === 1, () => `${of}: rows were deleted that nobody has deleted`);
    insist(least === 1 || greatest - least >= PRUNE_EVERY * STEPS_KEPT, () => `${of}: too many rows were deleted`);
    checkKeys(db, writer, greatest);
    last.push(greatest);
    rows += count;
  }
  const deadLetters = await checkDeadLetters(db, last, known);
  const increments = db.get('increments', 0) as number;
  insist(increments >= known.increments, () => `${increments} increments, ${known.increments} were acknowledged`);
  const { total } = (await db.afetchOne<{ total: number }>('SELECT sum(balance) AS total FROM accounts')) as {
    total: number;
  };
  insist(total === ACCOUNTS * BALANCE, () => `the accounts have ${total}: half of a transfer is there`);
  return { last, increments, rows, deadLetters };
}

function checkKeys(db: Database, writer: number, last: number): void {
  for (let slot = 0; slot < KEYS; slot++) {
    const value = db.get(`w/${writer}/${slot}`, 0) as number;
    // The key of a number is written before its row: it may be there alone.
    const expected = [last, last + 1].map((end) => Math.max(0, end - ((((end - slot) % KEYS) + KEYS) % KEYS)));
    insist(expected.includes(value), () => `key w/${writer}/${slot} is ${value}, rows end at ${last}`);
  }
  const [a, b] = ['a', 'b'].map((half) => db.get(`pair/${writer}/${half}`, 0) as number) as [number, number];
  insist(a === b, () => `half of a transaction of writer ${writer}: ${a} and ${b}`);
  const newest = last - (last % PAIR_EVERY);
  insist(a === newest || a === newest - PAIR_EVERY, () => `the pair of writer ${writer} is ${a}, rows end at ${last}`);
}

async function checkDeadLetters(db: Database, last: readonly number[], known: Known): Promise<number> {
  const letters = await db.dlq.listSummaries({ limit: 100_000 });
  const numbers: Set<number>[] = last.map(() => new Set());
  for (const { key, table } of letters) {
    const [writer, n] = (key ?? '').split('/').slice(1).map(Number) as [number, number];
    const of = `dead letter ${table} ${key}`;
    const found = numbers[writer];
    insist(table === 'picky' && found !== undefined && n % POISON_EVERY === 0, () => `${of}: nobody wrote that`);
    insist(!found.has(n), () => `${of} is there twice`);
    // The bad write comes before the row of its number.
    insist(n <= (last[writer] as number) + 1, () => `${of}: rows end at ${last[writer]}`);
    insist(n > (known.cleared[writer] ?? 0), () => `${of} came back: cleared up to ${known.cleared[writer]}`);
    found.add(n);
  }
  for (const [writer, found] of numbers.entries()) {
    const from = Math.max(known.clearing[writer] ?? 0, known.cleared[writer] ?? 0);
    for (let n = (Math.floor(from / POISON_EVERY) + 1) * POISON_EVERY; n <= (last[writer] as number); n += POISON_EVERY)
      insist(found.has(n), () => `the dead letter of number ${n} of writer ${writer} is missing`);
  }
  return letters.length;
}
