/**
 * The victim of kill.test.ts: opens a database, checks that it is what the rounds before have left behind, then writes
 * until it is killed. Says what it knows on standard output, which survives it.
 *
 *     usage: node writer-child.mjs FILE DURABILITY ACKNOWLEDGED SEED
 *     says:  opened RECOVERED LAST      the database is right, LAST is the last write that is there
 *            acked N                    write N and all before it are acknowledged
 *            wrong TEXT                 a promise was broken
 */
import { writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { open } from 'sluicedb';

const [, , path, durability, acknowledgedText, seedText] = process.argv;
const acknowledged = Number(acknowledgedText);
const KEYS = 300;

function say(text) {
  writeSync(1, `${text}\n`);
}

function wrong(text) {
  say(`wrong ${text}`);
  process.exit(3);
}

/** Write number n: a row, a key, and every seventh time an atomic pair. */
function write(db, rows, n) {
  rows.append({ n });
  db.set(`key/${n % KEYS}`, n);
  if (n % 7 === 0) db.setMany({ 'pair/a': n, 'pair/b': n });
}

async function verify(db) {
  const [{ count, least, last }] = await db.afetchAll(
    'SELECT count(*) AS count, min(n) AS least, max(n) AS last FROM log',
  );
  if (count > 0 && least !== 1) wrong(`the order begins at ${least}`);
  if (count !== (last ?? 0)) wrong(`${count} rows up to number ${last}: a hole, or one twice`);
  const distinct = (await db.afetchOne('SELECT count(DISTINCT n) AS distinctCount FROM log')).distinctCount;
  if (distinct !== count) wrong(`${count - distinct} rows are there twice`);
  if (durability !== 'memory' && (last ?? 0) < acknowledged) wrong(`acknowledged ${acknowledged}, there up to ${last}`);
  for (const [key, value] of db.scan({ prefix: 'key/' })) {
    const slot = Number(key.slice(4));
    // The row of the last number may have made it without its key: they are two writes.
    const expected = [last, last - 1].map((end) => end - ((((end - slot) % KEYS) + KEYS) % KEYS));
    if (!expected.includes(value)) wrong(`${key} is ${value}, the rows end at ${last}`);
  }
  const pair = [db.get('pair/a'), db.get('pair/b')];
  if (pair[0] !== pair[1]) wrong(`half of an atomic write: ${pair.join(' and ')}`);
  const { accepted, recovered, applied, coalesced, deadLettered, pending } = db.stats();
  if (accepted + recovered !== applied + coalesced + deadLettered + pending) wrong('the books do not balance');
  return last ?? 0;
}

let state = Number(seedText);
function random(below) {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state % below;
}

const db = await open(path, {
  durability,
  syncIntervalMs: 5,
  flush: { intervalMs: 1 + random(20), maxWrites: 100 + random(2_000) },
  log: { segmentBytes: 32 * 1024, maxBytes: 64 * 1024 * 1024 },
});
const rows = db.rows('log', { columns: { n: 'integer' } });
const { recovered } = db.stats();
let n = await verify(db);
say(`opened ${recovered} ${n}`);

for (;;) {
  for (const end = n + 1 + random(60); n < end; ) write(db, rows, ++n);
  const written = n;
  if (random(3) === 0) await db.adurable();
  else void db.adurable().then(() => say(`acked ${written}`));
  if (random(40) === 0) await db.aflush();
  if (db.needsDrain) await db.adrain();
  await nextTurn();
}
