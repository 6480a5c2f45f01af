import { describe, expect, test } from 'vitest';
import {
  DATA_SURVIVALS,
  type DiskOperation,
  imageAfter,
  NAME_SURVIVALS,
  PROCESS_CRASH,
  type Survival,
} from '../support/power-loss.ts';
import { seededRandom } from '../support/seed.ts';

const random = seededRandom(7);

/** Every disk that there can be after a history, as text. */
function outcomes(history: readonly DiskOperation[], survival: Partial<Survival>, tries = 400): string[] {
  const found = new Set<string>();
  for (let i = 0; i < tries; i++) {
    const { files } = imageAfter(history, history.length, { data: 'all', names: 'all', ...survival }, random);
    found.add([...files].map(([path, bytes]) => `${path}=${shown(bytes)}`).join(' '));
  }
  return [...found].sort();
}

/** Runs of the same byte as the byte, once for each started 512. */
function shown(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 512)
    text += bytes[at] === 0 ? '.' : String.fromCharCode(bytes[at] as number);
  return text;
}

const write = (offset: number, text: string): DiskOperation => ({
  kind: 'write',
  inode: 1,
  offset: offset * 512,
  bytes: Buffer.from([...text].map((byte) => byte.repeat(512)).join('')),
});
const open = (path: string, inode = 1): DiskOperation => ({ kind: 'open', path, inode });
const sync: DiskOperation = { kind: 'sync', inode: 1 };
const failedSync: DiskOperation = { kind: 'sync', inode: 1, failed: true };
const names: DiskOperation = { kind: 'syncDirectory', path: '/d' };

describe('what a power cut leaves of a file', () => {
  const begun = [open('/d/a'), write(0, 'ab'), sync, names];

  test('is what was synced, and of the rest what the survival says', () => {
    const history = [...begun, write(1, 'x'), write(2, 'yz')];
    expect(outcomes(history, { data: 'none' })).toEqual(['/d/a=ab']);
    expect(outcomes(history, { data: 'all' })).toEqual(['/d/a=axyz']);
    // The last write that is there may be torn.
    expect(outcomes(history, { data: 'prefix' })).toEqual(['/d/a=ab', '/d/a=ax', '/d/a=axy', '/d/a=axyz']);
    const blocks = outcomes(history, { data: 512 });
    expect(blocks).toEqual(expect.arrayContaining(['/d/a=ab', '/d/a=axyz', '/d/a=ab.z', '/d/a=ab..', '/d/a=axy.']));
    expect(blocks.every((one) => /^\/d\/a=a[bx]([y.][z.])?$/.test(one))).toBe(true);
    expect(outcomes(history, { data: 4096 })).toEqual(['/d/a=ab', '/d/a=ab..', '/d/a=ax', '/d/a=ax..', '/d/a=axyz']);
  });

  test('may be of any size that it had, and never shows again what was cut off', () => {
    const history: DiskOperation[] = [...begun, { kind: 'truncate', inode: 1, size: 512 }, write(2, 'z')];
    // Cut off whole or not at all: never zeros in a file that has kept its length, which nothing that truncates a log is made for.
    expect(outcomes(history, { data: 512 })).toEqual(['/d/a=a', '/d/a=a..', '/d/a=a.z', '/d/a=ab']);
    expect(outcomes(history, { data: 'all' })).toEqual(['/d/a=a.z']);
  });

  test('does not have what a failed sync was to carry, even after one that succeeds', () => {
    const history = [...begun, write(2, 'x'), failedSync, write(3, 'y'), sync];
    expect(outcomes(history, { data: 'none' })).toEqual(['/d/a=ab.y']);
    expect(outcomes(history, { data: 512 })).toEqual(['/d/a=ab.y', '/d/a=abxy']);
    // Written again, it is there.
    expect(outcomes([...history, write(2, 'x'), sync], { data: 'none' })).toEqual(['/d/a=abxy']);
  });
});

describe('what a power cut leaves of names', () => {
  test('is what their directory was synced with, and each name goes its steps in order', () => {
    const history: DiskOperation[] = [
      open('/d/a'),
      write(0, 'a'),
      sync,
      names,
      { kind: 'rename', from: '/d/a', to: '/d/b' },
      open('/d/c', 2),
      { kind: 'unlink', path: '/d/b' },
    ];
    expect(outcomes(history, { names: 'none' })).toEqual(['/d/a=a']);
    expect(outcomes(history, { names: 'all' })).toEqual(['/d/c=']);
    expect(outcomes(history, { names: 'prefix' })).toEqual(['/d/a=a', '/d/b=a', '/d/b=a /d/c=', '/d/c='].sort());
    const each = outcomes(history, { names: 'random' });
    expect(each).toEqual(['/d/a=a', '/d/a=a /d/c=', '/d/b=a', '/d/b=a /d/c=', '', '/d/c='].sort());
    expect(outcomes([...history, names], { names: 'none' })).toEqual(['/d/c=']);
    expect(outcomes([...history, { ...names, failed: true }], { names: 'none' })).toEqual(['/d/a=a']);
  });

  test('in a directory that is not there are not there', () => {
    const history: DiskOperation[] = [{ kind: 'mkdir', path: '/d' }, open('/d/a'), write(0, 'a'), sync, names];
    expect(outcomes(history, { names: 'none' })).toEqual(['']);
    expect(outcomes([...history, { kind: 'syncDirectory', path: '/' }], { names: 'none' })).toEqual(['/d/a=a']);
  });

  test('come back by themselves: a file that was replaced, under its own number', () => {
    const history: DiskOperation[] = [
      open('/d/a'),
      write(0, 'a'),
      sync,
      names,
      { kind: 'unlink', path: '/d/a' },
      // The system gives the number of a file that is gone to the next one.
      open('/d/b', 1),
      write(0, 'b'),
    ];
    expect(outcomes(history, { names: 'none' })).toEqual(['/d/a=a']);
    expect(outcomes(history, { data: 'none', names: 'all' })).toEqual(['/d/b=']);
  });
});

test('a process that dies takes nothing with it', () => {
  const history = [open('/d/a'), write(0, 'a'), failedSync, write(1, 'b')];
  for (let at = 0; at <= history.length; at++) {
    const { files } = imageAfter(history, at, PROCESS_CRASH, random);
    expect([...files.values()].map(shown)).toEqual([[], [''], ['a'], ['a'], ['ab']][at]);
  }
});

test('a history may begin on the disk that another one has left', () => {
  const first = imageAfter([open('/d/a'), write(0, 'a'), sync, names], 4, { data: 'none', names: 'none' }, random);
  for (const data of DATA_SURVIVALS) {
    for (const name of NAME_SURVIVALS) {
      const history = [open('/d/a', 9), { ...write(1, 'b'), inode: 9 } as DiskOperation];
      const { files } = imageAfter(history, 2, { data, names: name }, random, first);
      expect(files.get('/d/a')?.toString('latin1', 0, 512)).toBe('a'.repeat(512));
    }
  }
});
