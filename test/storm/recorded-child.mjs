/**
 * The process that recorded-process.test.ts records: takes the steps of a program from a place on, until it is to die or there are
 * none left. What it notes gets its place among the operations on the disk.
 *
 *     usage: node recorded-child.mjs PROGRAM FROM
 *            node recorded-child.mjs PROGRAM open FILE...      opens each, waits until all is applied, and closes it
 *     notes: opening N     is about to open
 *            opened N      has done so
 *            acked N       the steps before N are acknowledged
 *            safe N        and they are in SQLite for good
 *            backed up     there is a backup
 *            restoring, restored
 *            closed        has closed it
 *            delay MS      the event loop was late by so much at most, since the last open
 *            die           is not there any more; with a suffix: will not be, when it syncs such a file
 */
import { openSync, readFileSync, writeSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { open, restore } from 'sluicedb';

const [, , programFile, from, ...files] = process.argv;
const { file, backup, options, steps } = JSON.parse(readFileSync(programFile, 'utf8'));
const notes = openSync(process.env.DISK_RECORDER_NOTES, 'a');
const note = (text) => writeSync(notes, text);
const delay = monitorEventLoopDelay({ resolution: 1 });

/** Poison is meant to be there. */
function listen(db) {
  db.on('dead-letter', () => {});
  return db;
}

/** At 'applied' whoever waits is told that the write is a dead letter by now. */
function ifRefused(error) {
  if (options.durability !== 'applied' || error.code !== 'SLUICE_STORE') throw error;
}

async function run() {
  delay.enable();
  let db;
  let rows;
  const pending = new Set();
  for (let i = Number(from); i < steps.length; i++) {
    const step = steps[i];
    const done = i + 1;
    const acknowledged = async (promise) => {
      const told = promise.then(() => note(`acked ${done}`));
      pending.add(told);
      told.finally(() => pending.delete(told));
      if (step.wait) await told;
    };
    switch (step.do) {
      case 'open':
        note(`opening ${i}`);
        db = listen(await open(file, options));
        rows = db.rows('events', { columns: { n: 'integer' } });
        note(`opened ${done}`);
        delay.reset();
        break;
      case 'close':
        await db.close();
        await Promise.all(pending);
        note(`safe ${done}`);
        note('closed');
        break;
      case 'die':
      case 'die in a commit':
        await Promise.all(pending);
        await db.adurable();
        note(`delay ${delay.max / 1e6}`);
        note(`acked ${done}`);
        note(step.do === 'die' ? 'die' : 'die a.db-wal');
        break;
      case 'flush':
        await db.aflush();
        note(`safe ${done}`);
        break;
      case 'pause':
        await pause(step.ms);
        break;
      case 'execute':
        await db.aexecute(step.sql);
        note(`safe ${done}`);
        break;
      case 'sql':
        await db.atransaction(
          async (tx) => {
            await tx.aexecute('INSERT INTO ledger VALUES (?, ?)', [step.n, step.n]);
            await tx.aexecute('INSERT INTO ledger VALUES (?, ?)', [step.n, -step.n]);
          },
          { sql: true },
        );
        note(`safe ${done}`);
        break;
      case 'set':
        await acknowledged(db.aset(step.key, step.value));
        break;
      case 'delete':
        db.delete(step.key);
        await acknowledged(db.adurable());
        break;
      case 'append':
        await acknowledged(rows.aappend({ n: step.n }));
        break;
      case 'poison':
        await acknowledged(db.table('guarded').aset(step.key, 'bad').catch(ifRefused));
        break;
      case 'group':
        db.transaction((tx) => {
          tx.set('left', step.n);
          tx.rows('events').append({ n: step.n });
          tx.delete(step.goes);
          tx.set('right', step.n);
        });
        await acknowledged(db.adurable());
        break;
      case 'backup':
        await db.abackup(backup);
        note('backed up');
        note(`safe ${done}`);
        break;
      case 'restore':
        note('restoring');
        await db.arestore(backup);
        note('restored');
        note(`safe ${done}`);
        break;
      case 'restore closed':
        note('restoring');
        await restore(file, backup);
        note('restored');
        note(`safe ${done}`);
        break;
      default:
        throw new Error(`nobody knows how to ${step.do}`);
    }
  }
  note(`delay ${delay.max / 1e6}`);
}

async function recoverAll() {
  for (const each of files) {
    note(`opening ${each}`);
    const db = listen(await open(each, options));
    note(`opened ${each}`);
    await db.aflush();
    await db.close();
    note('closed');
  }
}

await (from === 'open' ? recoverAll() : run());
