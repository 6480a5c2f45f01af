import { createCipheriv, createHmac, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import {
  type Algorithm,
  type Database,
  type EncryptionOptions,
  inspect,
  type OpenOptions,
  open,
  verify,
} from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sluice } from '../support/cli.ts';
import { openTemp } from '../support/open-temp.ts';
import { tempDir } from '../support/temp-dir.ts';

const ALGORITHMS: readonly Algorithm[] = ['aes-256-gcm', 'chacha20-poly1305', 'fernet'];
const KEY = Buffer.alloc(32, 7);
const OTHER = Buffer.alloc(32, 8);

/** Nothing of it is anywhere in the open: ten letters that nothing else has. */
const SECRET = 'xyzzyplugh';

const decrypt = (message: RegExp) =>
  expect.objectContaining({ code: 'SLUICE_DECRYPT', message: expect.stringMatching(message) });

async function openAt(file: string, options: OpenOptions): Promise<Database> {
  const db = await open(file, options);
  db.on('dead-letter', () => {});
  onTestFinished(async () => void (await db.close()));
  return db;
}

/** The bytes of all files of a database. */
function everythingOf(file: string): Buffer {
  const log = readdirSync(`${file}-log`).map((name) => join(`${file}-log`, name));
  const own = [file, `${file}-wal`].filter((name) =>
    readdirSync(join(file, '..')).includes(name.split('/').at(-1) ?? ''),
  );
  return Buffer.concat([...own, ...log].map((name) => readFileSync(name)));
}

function raw<T>(file: string, work: (db: Sqlite.Database) => T): T {
  const db = new Sqlite(file);
  try {
    return work(db);
  } finally {
    db.close();
  }
}

describe.each(ALGORITHMS)('%s', (algorithm) => {
  const encryption: EncryptionOptions = { key: KEY, algorithm };

  test('values, log and dead letters hold nothing in the open, and everything is read back', async () => {
    const file = join(tempDir(), 'secret.db');
    const db = await openAt(file, { encryption, flush: { mode: 'manual' } });
    await db.aexecute("CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT, CHECK (key <> 'bad'))");
    const values: [string, unknown][] = [
      ['text', SECRET],
      ['object', { [SECRET]: [1, null, { deep: SECRET }] }],
      ['bytes', Uint8Array.from(Buffer.from(SECRET))],
      ['no bytes', new Uint8Array()],
      ['empty', ''],
      ['null', null],
      ['', 'the empty key'],
      ['ключ\0😀', 42],
    ];
    for (const [key, value] of values) db.set(key, value);
    db.table('picky').set('bad', SECRET);
    db.table('picky').setMany({ fine: SECRET, bad: SECRET });
    db.stage('INSERT INTO nowhere VALUES (?)', [SECRET]);
    const expectAll = async (reader: Database) => {
      for (const [key, value] of values) {
        expect(reader.get(key)).toEqual(value);
        expect(await reader.aget(key)).toEqual(value);
      }
      expect(new Map(reader.scan())).toEqual(new Map(values));
      expect(await reader.acopy()).toEqual(new Map(values));
      expect(reader.size).toBe(values.length);
    };
    await expectAll(db);
    await db.adurable();
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    await db.aflush();
    await expectAll(db);
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    const letters = await db.dlq.list();
    expect(letters.map(({ payload }) => payload)).toEqual([
      JSON.stringify(SECRET),
      [
        { table: 'picky', operation: 'put', key: 'fine', statement: null, payload: JSON.stringify(SECRET) },
        { table: 'picky', operation: 'put', key: 'bad', statement: null, payload: JSON.stringify(SECRET) },
      ],
      [SECRET],
    ]);
    await db.close();
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT DISTINCT typeof(value) FROM data').pluck().all())).toEqual([
      'blob',
    ]);
    const again = await openAt(file, { encryption });
    await expectAll(again);
    expect((await again.dlq.get(1))?.payload).toBe(JSON.stringify(SECRET));
  });

  test('what a crash leaves in the log is replayed with the key, and with no other', async () => {
    const file = join(tempDir(), 'crash.db');
    const code = `
      import { open } from 'sluicedb';
      const db = await open(process.argv[1], { encryption: { key: Buffer.alloc(32, 7), algorithm: ${JSON.stringify(algorithm)} }, flush: { mode: 'manual' } });
      db.rows('rooms', { columns: { name: 'text' } }).append({ name: '${SECRET}' });
      await db.aset('a', '${SECRET}');
      process.kill(process.pid, 'SIGKILL');`;
    const { spawnSync } = await import('node:child_process');
    const died = spawnSync(process.execPath, ['--input-type=module', '-e', code, file], { cwd: import.meta.dirname });
    expect(died.signal, String(died.stderr)).toBe('SIGKILL');
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    await expect(open(file, { encryption: { key: OTHER, algorithm } })).rejects.toEqual(decrypt(/wrong one/));
    await expect(open(file)).rejects.toEqual(decrypt(/is encrypted with the key/));
    const db = await openAt(file, { encryption });
    expect(db.stats().recovered).toBeGreaterThanOrEqual(2);
    expect(db.get('a')).toBe(SECRET);
    expect(await db.afetchAll('SELECT name FROM rooms')).toEqual([{ name: SECRET }]);
  });

  test('a value that was changed, moved to another row or table, or put there by somebody else is refused', async () => {
    const file = join(tempDir(), 'moved.db');
    const db = await openAt(file, { encryption });
    db.setMany({ a: 'one', b: 'two' });
    db.table('other').set('a', 'three');
    await db.close();
    raw(file, (sqlite) => {
      const value = sqlite.prepare("SELECT value FROM data WHERE key = 'a'").pluck().get() as Buffer;
      const put = sqlite.prepare('INSERT OR REPLACE INTO data VALUES (?, ?)');
      put.run('moved', value);
      put.run('planted', '"plain"');
      put.run('number', 42);
      put.run('cut', value.subarray(0, 30));
      put.run('bytes', Buffer.from('something'));
      for (const at of [3, 5, 13, 25, 28, value.length - 1]) {
        const changed = Buffer.from(value);
        changed[at] = (changed[at] as number) ^ 1;
        put.run(`bit ${at}`, changed);
      }
      put.run('from elsewhere', sqlite.prepare("SELECT value FROM other WHERE key = 'a'").pluck().get());
      sqlite.prepare('INSERT OR REPLACE INTO other VALUES (?, ?)').run('a', value);
    });
    const again = await openAt(file, { encryption });
    expect(again.getMany(['a', 'b'])).toEqual(new Map(Object.entries({ a: 'one', b: 'two' })));
    const wrong = [...again.keys()].filter((key) => key !== 'a' && key !== 'b');
    expect(wrong).toHaveLength(12);
    for (const key of wrong) {
      expect(() => again.get(key), key).toThrow(decrypt(new RegExp(`the value of '${key}' in data`)));
      await expect(again.aget(key), key).rejects.toEqual(decrypt(/the value of/));
    }
    expect(() => again.table('other').get('a')).toThrow(decrypt(/moved here from another place/));
    expect(() => [...again.values()]).toThrow(decrypt(/the value of/));
  });
});

describe('the key', () => {
  test('base64 of either alphabet, bytes and a passphrase open; a database that is encrypted takes no other', async () => {
    const key = Buffer.from('fb'.repeat(32), 'hex');
    const file = join(tempDir(), 'key.db');
    for (const given of [key, key.toString('base64'), key.toString('base64url')]) {
      const db = await openAt(file, { encryption: { key: given } });
      db.set('times', (db.get<number>('times', 0) as number) + 1);
      await db.close();
    }
    const db = await openAt(file, { encryption: { key } });
    expect(db.get('times')).toBe(3);
    await db.close();
    for (const wrong of [{ key: OTHER }, { key, algorithm: 'fernet' }, { passphrase: 'correct horse' }] as const) {
      await expect(open(file, { encryption: wrong })).rejects.toEqual(decrypt(/wrong one/));
    }
    await expect(open(file)).rejects.toEqual(decrypt(/pass it as encryption.key/));
    await expect(open(file, { encryption: null })).rejects.toEqual(decrypt(/pass it as encryption.key/));
  });

  test('a passphrase is made a key with the salt and the parameters that the database keeps', async () => {
    const file = join(tempDir(), 'phrase.db');
    const db = await openAt(file, { encryption: { passphrase: 'correct horse battery' } });
    await db.aset('a', 1);
    await db.close();
    const [stored] = raw(file, (sqlite) =>
      sqlite.prepare('SELECT derivation FROM _sluice_keys').pluck().all(),
    ) as string[];
    expect(JSON.parse(stored ?? '')).toEqual({ salt: expect.stringMatching(/^[0-9a-f]{32}$/), N: 131_072, r: 8, p: 1 });
    await expect(open(file, { encryption: { passphrase: 'correct horse batterz' } })).rejects.toEqual(
      decrypt(/wrong one/),
    );
    const again = await openAt(file, { encryption: { passphrase: 'correct horse battery' } });
    expect(again.get('a')).toBe(1);
  });

  test('is told to nobody: not by the options of the database, nor by an error', async () => {
    const db = await openTemp('told.db', { encryption: { key: KEY, previous: [{ key: OTHER }] } });
    const { inspect } = await import('node:util');
    const shown = inspect(db, { depth: 10, showHidden: true }) + JSON.stringify(db.options);
    expect(db.options).toMatchObject({ keys: [], defaults: { cipher: undefined } });
    for (const secret of [KEY, OTHER]) {
      expect(shown.includes(secret.toString('base64'))).toBe(false);
      expect(shown.includes([...secret].join(','))).toBe(false);
      expect(shown.includes([...secret].join(', '))).toBe(false);
      expect(shown.includes(secret.toString('hex').replaceAll(/../g, '$& ').trim())).toBe(false);
    }
    const problem = (await open(':memory:', { encryption: { key: 'too short' } }).catch(
      (error: Error) => error,
    )) as Error;
    expect(problem.message).toMatch(/encryption.key must be 32 bytes/);
    expect(problem.message).not.toMatch(/too short/);
  });

  test('is said by no error, either, that says where it does not belong', async () => {
    const db = await openTemp('misplaced.db', { encryption: { key: KEY } });
    const misplaced = OTHER.toString('base64');
    const attempts: [problem: RegExp, attempt: (key: never) => unknown][] = [
      [/^open: encryption must be null, or an object/, (key) => open(':memory:', { encryption: key })],
      [
        /^open: encryption.previous must be a list/,
        (key) => open(':memory:', { encryption: { key: KEY, previous: key } }),
      ],
      [
        /^open: encryption.previous\[0\] must be an object/,
        (key) => open(':memory:', { encryption: { key: KEY, previous: [key] } }),
      ],
      [/^table: encryption must be null, or an object/, async (key) => db.table('other', { encryption: key })],
      [/^arotateKey: the key must be an object/, (key) => db.arotateKey(key)],
    ];
    for (const [message, attempt] of attempts) {
      const error = await Promise.resolve(attempt(misplaced as never)).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'SLUICE_INVALID_OPTION', message: expect.stringMatching(message) });
      expect((error as Error).message).not.toContain(misplaced.slice(0, 8));
    }
  });

  test('options that are none are refused, all at once', async () => {
    const wrong = {
      algorithm: 'rot13',
      key: Buffer.alloc(31),
      salt: 1,
      previous: [{}, { key: Buffer.alloc(16), algorithm: 'fernet' }, { key: KEY, passphrase: 'both of them' }],
    };
    await expect(open(':memory:', { encryption: wrong as never })).rejects.toMatchObject({
      code: 'SLUICE_INVALID_OPTION',
      problems: [
        expect.stringMatching(/^encryption.algorithm must be one of/),
        expect.stringMatching(/^encryption.key must be 32 bytes/),
        expect.stringMatching(/^encryption.previous\[0\].key or a passphrase/),
        expect.stringMatching(/^encryption.previous\[1\].key must be 32 bytes/),
        expect.stringMatching(/^encryption.previous\[2\].key or a passphrase/),
        expect.stringMatching(/^unknown option 'encryption.salt'/),
      ],
    });
    for (const none of ['a key', 42, [], true]) {
      await expect(open(':memory:', { encryption: none as never })).rejects.toMatchObject({
        code: 'SLUICE_INVALID_OPTION',
      });
    }
  });

  test('is not needed to inspect and verify, which find nothing wrong with what is encrypted', async () => {
    const file = join(tempDir(), 'verified.db');
    const db = await openAt(file, { encryption: { key: KEY } });
    db.stage('INSERT INTO nowhere VALUES (1)');
    db.set('a', 1);
    await db.close();
    expect(await verify(file)).toMatchObject({ ok: true, findings: [], checked: { deadLetters: 1 } });
    expect(await inspect(file)).toMatchObject({ deadLetters: { count: 1 } });
  });

  test('the commands take it from the environment', async () => {
    const file = join(tempDir(), 'cli.db');
    const env = { SLUICE_ENCRYPTION_KEY: KEY.toString('base64') };
    const input = `{"key":"a","value":"${SECRET}"}\n`;
    const loaded = await sluice(['ingest', '--db', file, '--table', 'data', '-'], { env, input });
    expect(loaded.code, loaded.stderr).toBe(0);
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    const refused = await sluice(['dlq', 'list', file]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/is encrypted with the key/);
    expect((await sluice(['dlq', 'list', file], { env })).code).toBe(0);
    const db = await openAt(file, { encryption: { key: KEY } });
    expect(db.get('a')).toBe(SECRET);
  });
});

describe('tables', () => {
  test('inherit the key of the database, have one of their own, or none', async () => {
    const file = join(tempDir(), 'tables.db');
    const db = await openAt(file, { encryption: { key: KEY } });
    db.table('child').set('a', SECRET);
    db.table('own', { encryption: { key: OTHER } }).set('a', SECRET);
    db.table('open', { encryption: null }).set('a', 'open');
    await db.close();
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT value FROM "open"').pluck().get())).toBe('"open"');
    const again = await openAt(file, { encryption: { key: KEY } });
    expect(again.table('child').get('a')).toBe(SECRET);
    expect(() => again.table('own', { encryption: null })).toThrow(decrypt(/is encrypted with the key/));
    expect(() => again.table('own', { encryption: { key: KEY } })).toThrow(decrypt(/not among those/));
    expect(again.table('own', { encryption: { key: OTHER } }).get('a')).toBe(SECRET);
    expect(again.table('own').get('a')).toBe(SECRET);
    expect(() => again.table('open', { encryption: { key: OTHER } })).toThrow(decrypt(/not encrypted/));
    expect(again.table('open', { encryption: null }).get('a')).toBe('open');
    expect(() => again.table('late', { encryption: { passphrase: 'a long one' } })).toThrow(
      expect.objectContaining({ code: 'SLUICE_INVALID_OPTION' }),
    );
  });

  test('are not asked for with the key of the database where they have another, also while nothing is applied yet', async () => {
    const file = join(tempDir(), 'mixed.db');
    const db = await openAt(file, { encryption: { key: KEY }, flush: { mode: 'manual' }, closeTimeoutMs: 0 });
    await db.table('own', { encryption: { key: OTHER } }).aset('a', 1);
    await db.table('open', { encryption: null }).aset('a', 1);
    expect(await db.close()).toEqual({ pending: 2 });
    const again = await openAt(file, { encryption: { key: KEY }, flush: { mode: 'manual' } });
    const expectRefused = () => {
      expect(() => again.table('own')).toThrow(decrypt(/add it to encryption.previous/));
      expect(() => again.table('own', { encryption: null })).toThrow(decrypt(/is encrypted with the key/));
      expect(() => again.table('open', { encryption: { key: OTHER } })).toThrow(decrypt(/not encrypted/));
    };
    expectRefused();
    await again.aflush();
    expectRefused();
    expect(again.table('own', { encryption: { key: OTHER } }).get('a')).toBe(1);
  });

  test('of rows have readable columns, and nothing readable in the log', async () => {
    const file = join(tempDir(), 'rows.db');
    const db = await openAt(file, { encryption: { key: KEY }, flush: { mode: 'manual' } });
    const rows = db.rows('rooms', { columns: { name: 'text', celsius: 'real' } });
    await rows.aappend({ name: SECRET, celsius: 21.5 });
    expect(everythingOf(file).includes(SECRET)).toBe(false);
    expect(await db.afetchAll('SELECT * FROM rooms')).toEqual([{ name: SECRET, celsius: 21.5 }]);
    expect(everythingOf(file).includes(SECRET)).toBe(true);
  });
});

describe('a database that was not encrypted', () => {
  test('takes a key, is read as before, and is encrypted by arotateKey', async () => {
    const file = join(tempDir(), 'later.db');
    const plain = await openAt(file, {});
    plain.setMany({ a: SECRET, bytes: Uint8Array.from(Buffer.from(SECRET)) });
    plain.table('child').set('a', SECRET);
    await plain.close();
    const db = await openAt(file, { encryption: { key: KEY } });
    expect([db.get('a'), db.table('child').get('a')]).toEqual([SECRET, SECRET]);
    db.set('b', 'new');
    expect(await db.arotateKey()).toEqual({ values: 3, deadLetters: 0 });
    expect(await db.arotateKey()).toEqual({ values: 0, deadLetters: 0 });
    expect(new Map(db.scan())).toEqual(
      new Map<string, unknown>([
        ['a', SECRET],
        ['b', 'new'],
        ['bytes', Uint8Array.from(Buffer.from(SECRET))],
      ]),
    );
    await db.close();
    const types = raw(file, (sqlite) => sqlite.prepare('SELECT DISTINCT typeof(value) FROM data').pluck().all());
    expect(types).toEqual(['blob']);
    raw(file, (sqlite) => sqlite.prepare('INSERT INTO data VALUES (?, ?)').run('planted', '1'));
    const again = await openAt(file, { encryption: { key: KEY } });
    expect(again.table('child').get('a')).toBe(SECRET);
    expect(() => again.get('planted')).toThrow(decrypt(/not encrypted/));
  });

  test('has nothing to rotate without a key', async () => {
    const db = await openTemp();
    await expect(db.arotateKey({ key: KEY })).rejects.toMatchObject({ code: 'SLUICE_UNSUPPORTED' });
  });
});

describe('a file of NanaSQLite', () => {
  const VALUES = { a: { n: 1 }, b: 'text', c: null };

  /** As the original does it: nonce, ciphertext and tag, or a token of the library `cryptography`. */
  const original: Record<string, (plain: string) => Buffer> = {
    'aes-256-gcm': (plain) => aead('aes-256-gcm', KEY, plain),
    'chacha20-poly1305': (plain) => aead('chacha20-poly1305' as 'aes-256-gcm', KEY, plain),
    'aes-256-gcm with 16 bytes': (plain) => aead('aes-128-gcm' as 'aes-256-gcm', KEY.subarray(0, 16), plain),
    fernet(plain) {
      const head = Buffer.concat([Buffer.from([0x80]), Buffer.alloc(8), randomBytes(16)]);
      const cipher = createCipheriv('aes-128-cbc', KEY.subarray(16), head.subarray(9));
      const signed = Buffer.concat([head, cipher.update(plain), cipher.final()]);
      const mac = createHmac('sha256', KEY.subarray(0, 16)).update(signed).digest();
      const token = Buffer.concat([signed, mac]).toString('base64');
      return Buffer.from(token.replaceAll('+', '-').replaceAll('/', '_'));
    },
  };

  function aead(cipher: 'aes-256-gcm', key: Uint8Array, plain: string): Buffer {
    const nonce = randomBytes(12);
    const sealing = createCipheriv(cipher, key, nonce, { authTagLength: 16 });
    return Buffer.concat([nonce, sealing.update(plain), sealing.final(), sealing.getAuthTag()]);
  }

  test.each(Object.keys(original))('opens with the raw key: %s', async (name) => {
    const file = join(tempDir(), 'nana.db');
    raw(file, (sqlite) => {
      sqlite.exec('CREATE TABLE "data" (key TEXT PRIMARY KEY, value TEXT)');
      const insert = sqlite.prepare('INSERT INTO data VALUES (?, ?)');
      for (const [key, value] of Object.entries(VALUES)) insert.run(key, original[name]?.(JSON.stringify(value)));
      // What its children leave behind, which the original does not encrypt.
      sqlite.exec(`CREATE TABLE child (key TEXT PRIMARY KEY, value TEXT); INSERT INTO child VALUES ('a', '{"n": 2}')`);
    });
    const algorithm = (name.split(' ')[0] ?? '') as Algorithm;
    const key = name.endsWith('16 bytes') ? KEY.subarray(0, 16) : KEY;
    await expect(open(file, { encryption: { key: OTHER.subarray(0, key.length), algorithm } })).rejects.toEqual(
      decrypt(/does not open what NanaSQLite has written/),
    );
    const db = await openAt(file, { encryption: { key, algorithm } });
    expect(db.toDict()).toEqual(VALUES);
    expect(await db.aget('a')).toEqual(VALUES.a);
    expect(db.table('child').get('a')).toEqual({ n: 2 });
    db.set('d', 'ours');
    await db.aflush();
    expect(db.toDict()).toEqual({ ...VALUES, d: 'ours' });
    expect(await db.arotateKey({ key: OTHER })).toEqual({ values: 5, deadLetters: 0 });
    await db.close();
    const again = await openAt(file, { encryption: { key: OTHER } });
    expect(again.toDict()).toEqual({ ...VALUES, d: 'ours' });
  });
});

test('a file of NanaSQLite that was opened without its key once is read with it all the same', async () => {
  const file = join(tempDir(), 'forgotten.db');
  const nonce = randomBytes(12);
  const sealing = createCipheriv('aes-256-gcm', KEY, nonce);
  const sealed = Buffer.concat([nonce, sealing.update('{"n":1}'), sealing.final(), sealing.getAuthTag()]);
  raw(file, (sqlite) => {
    sqlite.exec('CREATE TABLE "data" (key TEXT PRIMARY KEY, value TEXT)');
    sqlite.prepare('INSERT INTO data VALUES (?, ?)').run('a', sealed);
  });
  const bytes = Uint8Array.of(1, 2, 3);
  const plain = await openAt(file, {});
  plain.setMany({ b: 'in the open', c: bytes });
  await plain.close();
  const db = await openAt(file, { encryption: { key: KEY } });
  expect(db.toDict()).toEqual({ a: { n: 1 }, b: 'in the open', c: bytes });
  expect(await db.arotateKey()).toEqual({ values: 3, deadLetters: 0 });
  expect(db.toDict()).toEqual({ a: { n: 1 }, b: 'in the open', c: bytes });
});

describe('arotateKey', () => {
  async function filled(file: string, count: number): Promise<Database> {
    const db = await openAt(file, { encryption: { key: KEY } });
    await db.aexecute("CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT, CHECK (key <> 'bad'))");
    for (let i = 0; i < count; i++) db.set(`key ${i}`, { i });
    db.table('picky').set('bad', SECRET);
    db.table('picky').setMany({ fine: 1, bad: SECRET });
    db.stage('INSERT INTO nowhere VALUES (?)', [SECRET]);
    await db.aflush();
    return db;
  }

  const dictOf = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`key ${i}`, { i }]));

  test('brings values and dead letters to the new key, while writes go on', async () => {
    const file = join(tempDir(), 'rotate.db');
    const db = await filled(file, 2_500);
    const steps: number[] = [];
    const rotating = db.arotateKey(
      { key: OTHER, algorithm: 'chacha20-poly1305' },
      {
        batchSize: 500,
        onProgress({ values }) {
          steps.push(values);
          db.set('key 7', { i: 7, step: steps.length });
        },
      },
    );
    await expect(db.arotateKey({ key: KEY })).rejects.toMatchObject({ code: 'SLUICE_CONFLICT' });
    const { values, deadLetters } = await rotating;
    expect(values).toBeGreaterThanOrEqual(2_499);
    expect(deadLetters).toBe(3);
    expect(steps.length).toBeGreaterThanOrEqual(7);
    expect(db.toDict()).toEqual({ ...dictOf(2_500), 'key 7': { i: 7, step: steps.length } });
    expect(db.dlq.size).toBe(3);
    await db.close();
    await expect(open(file, { encryption: { key: KEY } })).rejects.toEqual(decrypt(/wrong one/));
    const again = await openAt(file, { encryption: { key: OTHER, algorithm: 'chacha20-poly1305' } });
    expect(again.toDict()).toEqual({ ...dictOf(2_500), 'key 7': { i: 7, step: steps.length } });
    expect((await again.dlq.list()).map(({ payload }) => payload)[0]).toBe(JSON.stringify(SECRET));
    const bytes = raw(file, (sqlite) =>
      sqlite.prepare('SELECT sum(length(write)) FROM _sluice_dead_letters').pluck().get(),
    );
    expect(again.stats().deadLetters.bytes).toBe(bytes);
  });

  test('interrupted, it needs both keys, and goes on', async () => {
    const file = join(tempDir(), 'interrupted.db');
    const db = await filled(file, 1_000);
    const stop = new AbortController();
    const onProgress = ({ values }: { values: number }) => {
      if (values >= 300) stop.abort();
    };
    await expect(
      db.arotateKey({ key: OTHER }, { batchSize: 100, onProgress, signal: stop.signal }),
    ).rejects.toMatchObject({
      code: 'SLUICE_ABORTED',
    });
    expect(db.toDict()).toEqual(dictOf(1_000));
    await db.close();
    await expect(open(file, { encryption: { key: OTHER } })).rejects.toEqual(decrypt(/still encrypted with the key/));
    await expect(open(file, { encryption: { key: KEY } })).rejects.toEqual(decrypt(/still encrypted with the key/));
    const again = await openAt(file, { encryption: { key: OTHER, previous: [{ key: KEY }] } });
    expect(again.toDict()).toEqual(dictOf(1_000));
    expect(await again.arotateKey()).toEqual({ values: 700, deadLetters: 0 });
    await again.close();
    const last = await openAt(file, { encryption: { key: OTHER } });
    expect(last.toDict()).toEqual(dictOf(1_000));
  });

  test('to a passphrase, and back to the key before', async () => {
    const file = join(tempDir(), 'back.db');
    const db = await filled(file, 10);
    expect((await db.arotateKey({ passphrase: 'correct horse' })).values).toBe(10);
    expect((await db.arotateKey({ key: KEY })).values).toBe(10);
    await db.close();
    const again = await openAt(file, { encryption: { key: KEY } });
    expect(again.toDict()).toEqual(dictOf(10));
  });

  test('to a passphrase, called again after an interruption, goes on to the same key', async () => {
    const file = join(tempDir(), 'again.db');
    const to = { passphrase: 'correct horse' };
    const db = await filled(file, 30);
    let stop = new AbortController();
    const options = () => ({ batchSize: 10, signal: stop.signal, onProgress: () => stop.abort() });
    for (let i = 0; i < 2; i++) {
      stop = new AbortController();
      await expect(db.arotateKey(to, options())).rejects.toMatchObject({ code: 'SLUICE_ABORTED' });
    }
    await db.close();
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT count(*) FROM _sluice_keys').pluck().get())).toBe(2);
    const again = await openAt(file, { encryption: { ...to, previous: [{ key: KEY }] } });
    stop = new AbortController();
    await expect(again.arotateKey(to, options())).rejects.toMatchObject({ code: 'SLUICE_ABORTED' });
    expect(again.toDict()).toEqual(dictOf(30));
    await again.close();
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT count(*) FROM _sluice_keys').pluck().get())).toBe(2);
    const last = await openAt(file, { encryption: { ...to, previous: [{ key: KEY }] } });
    await last.arotateKey(to);
    await last.close();
    expect((await openAt(file, { encryption: to })).toDict()).toEqual(dictOf(30));
  });

  test('opens with a passphrase that several of its keys are made of', async () => {
    const file = join(tempDir(), 'salts.db');
    const to = { passphrase: 'correct horse' };
    const db = await filled(file, 30);
    for (const key of [to, { key: OTHER }, to]) {
      const stop = new AbortController();
      const options = { batchSize: 10, signal: stop.signal, onProgress: () => stop.abort() };
      await expect(db.arotateKey(key, options)).rejects.toMatchObject({ code: 'SLUICE_ABORTED' });
    }
    await db.close();
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT count(*) FROM _sluice_keys').pluck().get())).toBe(4);
    const again = await openAt(file, { encryption: { ...to, previous: [{ key: KEY }, { key: OTHER }] } });
    expect(again.toDict()).toEqual(dictOf(30));
    await again.arotateKey();
    await again.close();
    expect((await openAt(file, { encryption: to })).toDict()).toEqual(dictOf(30));
  });

  test('loses no value that a retry brings back meanwhile', async () => {
    const file = join(tempDir(), 'retried.db');
    const db = await filled(file, 1_000);
    await db.aexecute('DROP TABLE picky');
    await db.aexecute('CREATE TABLE a_picky (key TEXT PRIMARY KEY, value TEXT)');
    await db.aexecute('CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT)');
    await db.aexecute('CREATE TABLE z_picky (key TEXT PRIMARY KEY, value TEXT)');
    for (let i = 0; i < 1_000; i++) db.table('z_picky').set(`key ${i}`, i);
    let retrying: Promise<unknown> | undefined;
    let [before, after] = [0, 0];
    const { values } = await db.arotateKey(
      { key: OTHER },
      {
        batchSize: 2,
        onProgress(progress) {
          // Where `picky` is done, and more than enough is still to come.
          if (progress.values < 1_100) return;
          before = progress.values;
          retrying ??= db.dlq.retry('all').then((result) => {
            after = before;
            return result;
          });
        },
      },
    );
    expect(await retrying).toMatchObject({ applied: 1, failed: 1 });
    expect(after, 'the retry came before the end').toBeLessThan(values);
    await db.close();
    const again = await openAt(file, { encryption: { key: OTHER } });
    expect(again.table('picky').toDict()).toEqual({ bad: SECRET, fine: 1 });
  });

  test('loses no value that was exported with the key before, and is imported', async () => {
    const file = join(tempDir(), 'imported.db');
    const db = await filled(file, 100);
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    await db.dlq.clear('all');
    let importing: Promise<unknown> | undefined;
    const onProgress = () => {
      importing ??= db.dlq.import(lines.slice(0, 1));
    };
    await db.arotateKey({ key: OTHER }, { batchSize: 5, onProgress });
    await importing;
    await db.dlq.import(lines.slice(1));
    await db.close();
    const again = await openAt(file, { encryption: { key: OTHER } });
    expect((await again.dlq.list()).map(({ operation }) => operation)).toEqual(['put', 'group', 'sql']);
    await again.aexecute('DROP TABLE picky');
    await again.aexecute('CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT)');
    expect(await again.dlq.retry([1, 2, 4, 5])).toMatchObject({ applied: 1, superseded: 1 });
    expect(again.table('picky').toDict()).toEqual({ bad: SECRET, fine: 1 });
  });

  test('refuses options that are none before it has begun', async () => {
    const db = await openTemp('options.db', { encryption: { key: KEY } });
    for (const options of [{ onProgress: 5 }, { signal: 'now' }, { batchSize: 0 }, { batch: 1 }, null]) {
      await expect(db.arotateKey({ key: OTHER }, options as never)).rejects.toMatchObject({
        code: 'SLUICE_INVALID_OPTION',
      });
    }
    expect(await db.afetchAll('SELECT active FROM _sluice_keys')).toEqual([{ active: 1 }]);
  });

  test('leaves a table alone whose keys name several rows', async () => {
    const file = join(tempDir(), 'texts.db');
    const plain = await openAt(file, {});
    await plain.aexecute('CREATE TABLE texts (key TEXT, language TEXT, value TEXT, PRIMARY KEY (key, language))');
    await plain.aexecute("INSERT INTO texts VALUES ('hello', 'de', 'hallo'), ('hello', 'fr', 'bonjour')");
    expect(() => plain.table('texts')).toThrow(expect.objectContaining({ code: 'SLUICE_INVALID_OPTION' }));
    await plain.close();
    const db = await openAt(file, { encryption: { key: KEY } });
    expect(await db.arotateKey()).toEqual({ values: 0, deadLetters: 0 });
    expect(await db.afetchAll('SELECT value FROM texts ORDER BY language')).toEqual([
      { value: 'hallo' },
      { value: 'bonjour' },
    ]);
  });

  test('takes large values a few at a time', async () => {
    const db = await openTemp('large.db', { encryption: { key: KEY } });
    const value = 'x'.repeat(3 * 1024 * 1024);
    for (let i = 0; i < 7; i++) await db.aset(`key ${i}`, value);
    const steps: number[] = [];
    await db.arotateKey({ key: OTHER }, { onProgress: ({ values }) => steps.push(values) });
    expect([...new Set(steps)]).toEqual([0, 3, 6, 7]);
    expect(db.get('key 6')).toBe(value);
  });

  test('leaves tables with a key of their own, or none, as they are', async () => {
    const file = join(tempDir(), 'spared.db');
    const db = await filled(file, 10);
    db.table('own', { encryption: { key: OTHER } }).set('a', 1);
    db.table('open', { encryption: null }).set('a', 1);
    const next = Buffer.alloc(32, 9);
    expect(await db.arotateKey({ key: next })).toEqual({ values: 10, deadLetters: 3 });
    await db.close();
    expect(raw(file, (sqlite) => sqlite.prepare('SELECT value FROM "open"').pluck().get())).toBe('1');
    const again = await openAt(file, { encryption: { key: next } });
    expect(again.table('own', { encryption: { key: OTHER } }).get('a')).toBe(1);
  });

  test('ends with an error at a value that no key opens, and goes on when it is gone', async () => {
    const file = join(tempDir(), 'stuck.db');
    const db = await filled(file, 10);
    await db.aexecute("UPDATE data SET value = (SELECT value FROM data WHERE key = 'key 1') WHERE key = 'key 2'");
    await expect(db.arotateKey({ key: OTHER })).rejects.toEqual(decrypt(/the value of 'key 2' in data/));
    db.delete('key 2');
    expect(await db.arotateKey({ key: OTHER })).toEqual({ values: 9, deadLetters: 0 });
  });
});

describe('exports of dead letters', () => {
  test('hold nothing in the open, and go into a database with the same key, and into no other', async () => {
    const db = await openTemp('from.db', { encryption: { key: KEY } });
    db.stage('INSERT INTO nowhere VALUES (?)', [SECRET]);
    await db.aflush();
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    expect(lines.join('')).not.toContain(SECRET);
    expect(lines.join('')).not.toContain(Buffer.from(SECRET).toString('base64').slice(0, 8));
    const same = await openTemp('same.db', { encryption: { key: KEY } });
    expect(await same.dlq.import(lines)).toEqual({ imported: 1, duplicates: 0 });
    expect((await same.dlq.list())[0]?.payload).toEqual([SECRET]);
    for (const encryption of [null, { key: OTHER }]) {
      const other = await openTemp(`other ${encryption === null}.db`, { encryption });
      await expect(other.dlq.import(lines)).rejects.toMatchObject({ code: 'SLUICE_INVALID_VALUE' });
    }
    const plain = await openTemp('plain.db');
    plain.stage('INSERT INTO nowhere VALUES (?)', [1]);
    await plain.aflush();
    await expect(same.dlq.import(plain.dlq.export())).rejects.toThrow(/not encrypted/);
  });
});
