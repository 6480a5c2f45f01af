import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { machine } from '../support/machine.ts';
import { MortalWriter } from '../support/mortal-writer.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

test('a rotation of the key loses nothing when the writer thread dies in it, at any moment', {
  timeout: 60_000,
}, async () => {
  const random = seededRandom(1);
  const file = join(tempDir(), 'mortal.db');
  const writer = new MortalWriter();
  const key = (n: number) => Buffer.alloc(32, n);
  let db = await openOn<number>(machine({ spawn: writer.spawn }), file, { encryption: { key: key(0) } });
  db.on('dead-letter', () => {});
  await db.aexecute("CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT, CHECK (key <> 'bad'))");
  const expected = new Map<string, number>();
  const set = (name: string, value: number) => {
    db.set(name, value);
    expected.set(name, value);
  };
  for (let i = 0; i < 200; i++) set(`key ${i}`, i);
  for (let i = 0; i < 20; i++) db.table('picky').setMany({ bad: i, [`fine ${i}`]: i });
  await db.aflush();
  let [rotating, deaths] = [false, 0];
  const listen = () => {
    db.on('dead-letter', () => {});
    db.on('failure', () => {});
    db.on('writer-restart', () => {
      if (rotating) deaths++;
    });
  };
  listen();
  for (let round = 1; round <= 16; round++) {
    rotating = true;
    const rotated = db.arotateKey({ key: key(round) }, { batchSize: 20 });
    const killed = writer.kill(1 + Math.floor(random() * 300));
    for (let i = 0; i < 10; i++) set(`key ${Math.floor(random() * 250)}`, round * 1_000 + i);
    await rotated;
    rotating = false;
    await db.aflush();
    await killed;
    if (round % 4 > 0) continue;
    expect(new Map(db.scan())).toEqual(expected);
    await db.close();
    db = await openOn<number>(machine({ spawn: writer.spawn }), file, { encryption: { key: key(round) } });
    listen();
    expect(new Map(db.scan())).toEqual(expected);
    expect((await db.dlq.list()).length).toBe(20);
  }
  expect(deaths, 'deaths in a rotation').toBeGreaterThan(3);
  await db.close();
});
