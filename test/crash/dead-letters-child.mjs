/**
 * The victim of dead-letters.test.ts: opens a database, checks that everything is in one place, then writes good and poisoned
 * rows while it retries, clears and imports dead letters, until it is killed. Says what it knows on standard output.
 *
 *     usage: node dead-letters-child.mjs FILE STATE SEED
 *            STATE is a file with {acked, cleared, keys}: what the rounds before have said
 *     says:  opened ENTRIES ROWS        everything is in one place
 *            keys JSON                  the value of each key, which grows
 *            acked N                    row N and all before it are acknowledged
 *            begin WHAT, end WHAT       of retry, clear and import
 *            clearing N …               these rows may be gone from now on
 *            wrong TEXT                 a promise was broken
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { open } from 'sluicedb';

const [, , path, statePath, seedText] = process.argv;
const before = JSON.parse(readFileSync(statePath, 'utf8'));
const exportPath = `${path}.ndjson`;
const KEYS = 8;

function say(text) {
  writeSync(1, `${text}\n`);
}

function wrong(text) {
  say(`wrong ${text}`);
  process.exit(3);
}

let state = Number(seedText);
function random(below) {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 0x1_0000_0000) * below);
}

function balance(db) {
  const { accepted, recovered, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
  if (accepted + recovered !== applied + coalesced + deadLettered + pending) wrong('the writes do not balance');
  const { entriesAtOpen, imported, entries, retried, superseded, cleared, evicted } = deadLetters;
  if (entriesAtOpen + deadLettered + imported !== entries + retried + superseded + cleared + evicted) {
    wrong(`the queue does not balance: ${JSON.stringify({ deadLettered, ...deadLetters })}`);
  }
}

async function entriesOf(db, filter) {
  const entries = [];
  for (let after; ; ) {
    const page = await db.dlq.list({ ...filter, after, limit: 1_000 });
    if (page.length === 0) return entries;
    entries.push(...page);
    after = page.at(-1).id;
  }
}

/** Every accepted row is in the table, in the queue, or was cleared: in one of them. Returns the last number. */
async function verify(db) {
  const rows = (await db.afetchAll('SELECT n FROM log ORDER BY n')).map(({ n }) => n);
  const dead = (await entriesOf(db, { table: 'log' })).map(({ payload }) => payload[0]);
  // What an interrupted import has not brought back yet.
  const exported = existsSync(exportPath)
    ? readFileSync(exportPath, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).payload[0])
    : [];
  const places = new Map();
  for (const n of rows) places.set(n, places.has(n) ? wrong(`row ${n} is in the table twice`) : 'table');
  for (const n of dead) places.set(n, places.has(n) ? wrong(`row ${n} is dead, and in the ${places.get(n)}`) : 'queue');
  for (const n of exported) {
    if (places.get(n) === 'table') wrong(`row ${n} was applied, and waits for its import`);
    places.set(n, 'export');
  }
  const cleared = new Set(before.cleared);
  for (let n = 1; n <= before.acked; n++) if (!places.has(n) && !cleared.has(n)) wrong(`row ${n} is nowhere`);
  if (db.dlq.size !== (await db.afetchOne('SELECT count(*) AS n FROM _sluice_dead_letters')).n)
    wrong('the size is not');
  const keys = Object.fromEntries(db.table('kv').entries());
  for (const [key, value] of Object.entries(before.keys)) {
    if (!(keys[key] >= value)) wrong(`${key} was ${value}, and is ${keys[key]}`);
  }
  say(`keys ${JSON.stringify(keys)}`);
  say(`opened ${db.dlq.size} ${rows.length}`);
  return Math.max(before.acked, ...before.cleared, ...places.keys());
}

const db = await open(path, { durability: 'os', flush: { intervalMs: 1 + random(8), maxWrites: 5 + random(100) } });
db.on('dead-letter', () => {});
for (const sql of [
  'CREATE TABLE IF NOT EXISTS gate (shut INTEGER)',
  'CREATE TABLE IF NOT EXISTS log (n INTEGER)',
  'CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT)',
  ...['log', 'kv'].flatMap((table) =>
    ['INSERT', 'UPDATE'].map(
      (on) => `CREATE TRIGGER IF NOT EXISTS ${table}_${on} AFTER ${on} ON ${table}
        WHEN EXISTS (SELECT 1 FROM gate) AND NEW.${table === 'log' ? 'n' : 'value'} % 3 = 0
        BEGIN SELECT CASE NEW.${table === 'log' ? 'n' : 'value'} % 33 WHEN 0 THEN RAISE(ROLLBACK, 'shut') ELSE RAISE(ABORT, 'shut') END; END`,
    ),
  ),
]) {
  await db.aexecute(sql);
}
await db.aflush();
balance(db);
const rows = db.rows('log');
let n = await verify(db);

async function write() {
  for (;;) {
    for (const end = n + 1 + random(8); n < end; ) {
      rows.append({ n: ++n });
      if (random(4) === 0) db.table('kv').set(`k${random(KEYS)}`, n);
    }
    const written = n;
    void db.adurable().then(() => say(`acked ${written}`));
    balance(db);
    await sleep(2 + random(6));
  }
}

async function importAgain() {
  say('begin import');
  await db.dlq.import(readFileSync(exportPath));
  rmSync(exportPath);
  say('end import');
}

async function retry() {
  let applied = 0;
  // Said once it is among entries that are applied, where there is something to tear apart.
  const onProgress = (progress) => {
    if (applied === 0 && progress.applied > 0) say('begin retry');
    applied = progress.applied;
  };
  await db.dlq.retry(random(3) === 0 ? { table: 'kv' } : 'all', { batchSize: 1 + random(4), onProgress });
  say('end retry');
}

/** Some of the rows are cleared for good, and some go away and come back. */
async function clear(comesBack) {
  const entries = (await entriesOf(db, { table: 'log' })).filter(() => random(2) === 0).slice(0, 200);
  const ids = new Set(entries.map(({ id }) => id));
  if (ids.size === 0) return;
  if (comesBack) {
    let lines = '';
    for await (const line of db.dlq.export({ table: 'log' })) if (ids.has(JSON.parse(line).id)) lines += line;
    // Whole or not at all: it may be killed while it writes.
    writeFileSync(`${exportPath}.tmp`, lines);
    renameSync(`${exportPath}.tmp`, exportPath);
  } else {
    say(`clearing ${entries.map(({ payload }) => payload[0]).join(' ')}`);
  }
  say('begin clear');
  await db.dlq.clear([...ids], { batchSize: 1 + random(20) });
  say('end clear');
  if (comesBack) await importAgain();
}

// Before anything is applied: what is there is not taken twice.
if (existsSync(exportPath)) await importAgain();
const writing = write();
writing.catch((error) => wrong(String(error)));
for (;;) {
  await db.aexecute('INSERT INTO gate VALUES (1)', [], { ahead: true });
  await sleep(10 + random(60));
  if (random(4) > 0) await db.aexecute('DELETE FROM gate', [], { ahead: true });
  const what = random(5);
  if (what < 2) await retry();
  else await clear(what < 4);
  balance(db);
  await nextTurn();
}
