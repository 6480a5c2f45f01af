import { SluiceError } from 'sluicedb';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { backoffMs } from '../../dist/base/backoff.js';
import { systemClock } from '../../dist/base/clock.js';
import { OptionReader } from '../../dist/base/options.js';
import { checkWait, Deferred, waitFor } from '../../dist/base/waiting.js';
import { resolveOptions } from '../../dist/db/options.js';
import { Health } from '../../dist/engine/index.js';
import { HeldClock } from '../support/held-clock.ts';

function problemsOf(given: unknown): readonly string[] {
  try {
    resolveOptions(given as never, false);
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    expect((error as SluiceError).code).toBe('SLUICE_INVALID_OPTION');
    return (error as SluiceError).problems;
  }
  return [];
}

describe('options', () => {
  test('nothing given is everything by default, and frozen', () => {
    const options = resolveOptions({}, false);
    expect(options).toMatchObject({
      table: 'data',
      durability: 'sync',
      flush: { mode: 'auto' },
      closeTimeoutMs: 30_000,
    });
    expect(Object.isFrozen(options)).toBe(true);
    expect(resolveOptions({}, true).durability).toBe('memory');
    expect(resolveOptions({ durability: 'os', flush: undefined }, true).durability).toBe('os');
  });

  test('all problems come in one error', () => {
    const problems = problemsOf({
      table: 'sqlite_x',
      durability: 'none',
      syncIntervalMs: 0,
      flush: { mode: 5, intervalMs: 1.5, maxWrites: '1', intervalMS: 5 },
      staging: { maxBytes: 1 },
      log: [],
      whenFull: null,
      lockTimeout: 3,
      readers: Number.NaN,
      xyzzy: 1,
    });
    expect(problems).toHaveLength(13);
    expect(problems).toContain("unknown option 'flush.intervalMS', did you mean 'flush.intervalMs'?");
    expect(problems).toContain("unknown option 'lockTimeout', did you mean 'lockTimeoutMs'?");
    expect(problems).toContain("unknown option 'xyzzy'");
    expect(problems).toContain('log must be an object, not an array');
    expect(problems.find((problem) => problem.startsWith('flush.mode'))).toContain("'auto', 'immediate'");
  });

  test.each([
    [null, 'options must be an object, not null'],
    [5, 'options must be an object, not 5'],
    [{ durabilty: 'os' }, "unknown option 'durabilty', did you mean 'durability'?"],
    [{ durability: 'Sync' }, "durability must be one of 'memory', 'os', 'interval', 'sync', 'applied', not 'Sync'"],
    [{ flush: { maxWrites: 10_000_001 } }, 'flush.maxWrites must be an integer from 1 to 10000000, not 10000001'],
    [
      { log: { segmentBytes: 8_192, maxBytes: 8_192 } },
      'log.maxBytes must be at least twice log.segmentBytes (8192), not 8192',
    ],
    [{ table: '' }, "table must be a non-empty string, not ''"],
    [{ constructor: 1 }, "unknown option 'constructor'"],
  ])('%j: %s', (given, problem) => {
    expect(problemsOf(given)).toEqual([problem]);
  });

  test('what is inherited is not given', () => {
    expect(problemsOf(Object.create({ durability: 'none' }))).toEqual([]);
  });

  test('an option reader asks for each kind of value', () => {
    const reader = new OptionReader({ yes: 'no', text: 1 });
    expect([reader.boolean('yes', true), reader.boolean('other', false), reader.text('text', 'fallback')]).toEqual([
      true,
      false,
      'fallback',
    ]);
    expect(() => reader.finish('here')).toThrow(
      "here: yes must be true or false, not 'no'; text must be a string, not 1",
    );
  });
});

test('backoff doubles up to its maximum, of which at most half is taken away', () => {
  for (const random of [0, 0.5, 0.999_999]) {
    for (let attempt = 1; attempt <= 2_000; attempt = attempt * 2 + 1) {
      const full = Math.min(1_000, 10 * 2 ** Math.min(attempt - 1, 30));
      const delay = backoffMs(attempt, 10, 1_000, () => random);
      expect(delay).toBeGreaterThanOrEqual(full / 2);
      expect(delay).toBeLessThan(full + 1e-9);
    }
  }
  expect(backoffMs(3, 10, 1_000, () => 0)).toBe(20);
});

describe('waiting', () => {
  test('without limits it is the promise itself', async () => {
    const promise = Promise.resolve(1);
    expect(waitFor(promise, 'x', {}, new HeldClock())).toBe(promise);
  });

  test('passes on what the promise says, and takes timer and listener away', async () => {
    const clock = new HeldClock();
    const { signal } = new AbortController();
    const removed = vi.spyOn(signal, 'removeEventListener');
    await expect(waitFor(Promise.resolve(1), 'x', { timeoutMs: 5, signal }, clock)).resolves.toBe(1);
    await expect(waitFor(Promise.reject(new Error('no')), 'x', { timeoutMs: 5, signal }, clock)).rejects.toThrow('no');
    expect(clock.timers).toBe(0);
    expect(removed).toHaveBeenCalledTimes(2);
  });

  test('gives up at its limit, once, and says so to who can call it off', async () => {
    const clock = new HeldClock();
    const work = new Deferred<number>();
    const abort = new AbortController();
    let calledOff = 0;
    const waits = waitFor(work.promise, 'the work', { timeoutMs: 10, signal: abort.signal }, clock, () => calledOff++);
    clock.advance(9);
    expect(calledOff).toBe(0);
    clock.advance(1);
    abort.abort();
    work.reject(new Error('late'));
    await expect(waits).rejects.toMatchObject({
      code: 'SLUICE_TIMEOUT',
      message: 'the work did not finish within 10 ms',
    });
    expect(calledOff).toBe(1);
  });

  test('a signal that is aborted already gives up at once', async () => {
    const reason = new Error('why');
    const failing = Promise.reject(new Error('nobody looks'));
    await expect(waitFor(failing, 'x', { signal: AbortSignal.abort(reason) }, new HeldClock())).rejects.toMatchObject({
      code: 'SLUICE_ABORTED',
      cause: reason,
    });
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5' as never])('%s is no limit', (timeoutMs) => {
    expect(() => checkWait({ timeoutMs })).toThrow(expect.objectContaining({ code: 'SLUICE_INVALID_OPTION' }));
  });

  test('a deferred that nobody awaits is no unhandled rejection', async () => {
    const rejections: unknown[] = [];
    const note = (error: unknown) => rejections.push(error);
    process.on('unhandledRejection', note);
    new Deferred().reject(new Error('unseen'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    process.off('unhandledRejection', note);
    expect(rejections).toEqual([]);
  });
});

describe("the machine's clock", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
  afterEach(() => void vi.useRealTimers());

  test('calls once after the delay, unless called off', () => {
    const called: string[] = [];
    systemClock.after(10, () => called.push('kept'));
    systemClock.after(10, () => called.push('off')).cancel();
    vi.advanceTimersByTime(9);
    expect(called).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(called).toEqual(['kept']);
  });

  test('a delay that is longer than any timer of Node.js is a very long one', () => {
    const called: string[] = [];
    systemClock.after(Number.MAX_SAFE_INTEGER, () => called.push('late'));
    vi.advanceTimersByTime(86_400_000);
    expect(called).toEqual([]);
  });
});

describe('health', () => {
  function subject() {
    const told: string[] = [];
    const health = new Health((name, ...payload) => {
      if (name === 'state') told.push((payload[0] as { state: string }).state);
      else told.push(name);
    });
    return { health, told };
  }

  test('is the worst of its parts, and told when it changes', () => {
    const { health, told } = subject();
    health.trouble('flush', 'degraded', new Error('busy'));
    health.trouble('log', 'space', new Error('full'));
    health.trouble('log', 'space', new Error('still full'));
    expect(health.state).toBe('space');
    health.recovered('log');
    expect(health.state).toBe('degraded');
    health.recovered('flush');
    health.recovered('flush');
    expect(health.state).toBe('ok');
    expect(told.filter((one) => one !== 'failure')).toEqual(['degraded', 'space', 'degraded', 'ok']);
  });

  test('failed is for good, and stops everybody once', () => {
    const { health, told } = subject();
    let stopped = 0;
    health.onFailed(() => stopped++);
    health.fail('log', new Error('first'));
    health.fail('flush', new Error('second'));
    health.recovered('log');
    health.close('closing');
    expect([health.state, health.cause?.message, stopped]).toEqual(['failed', 'first', 1]);
    health.close('closed');
    health.fail('flush', new Error('third'));
    expect([health.state, stopped]).toEqual(['closed', 1]);
    expect(told).toEqual(['failure', 'failed', 'closed']);
  });
});
