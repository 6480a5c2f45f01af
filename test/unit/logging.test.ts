import { SluiceError } from 'sluicedb';
import { expect, test } from 'vitest';
import { DatabaseLog } from '../../dist/db/logging.js';
import { resolveOptions } from '../../dist/db/options.js';
import { settle } from '../support/eventually.ts';
import { HeldClock } from '../support/held-clock.ts';
import { Recorder } from '../support/recorder.ts';

function problemOf(logger: unknown): readonly string[] {
  try {
    resolveOptions({ logger } as never, false);
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    expect((error as SluiceError).code).toBe('SLUICE_INVALID_OPTION');
    return (error as SluiceError).problems;
  }
  return [];
}

const noop = () => {};

test('a logger that is none is refused, with what it lacks', () => {
  const shape = 'logger must be an object with the methods debug, info, warn, error';
  for (const [given, said] of [
    [null, 'not null'],
    ['info', "not 'info'"],
    [true, 'not true'],
    [{}, 'not an object'],
    [noop, 'not a function'],
    [{ debug: noop, info: noop, warn: noop }, 'it has no error'],
    [{ error: noop, log: noop, warn: 'warn' }, 'it has no debug and no info and no warn'],
  ] as const) {
    const [problem, ...more] = problemOf(given);
    expect(more).toEqual([]);
    expect(problem?.startsWith(shape), problem).toBe(true);
    expect(problem?.endsWith(said), problem).toBe(true);
  }
});

test('a logger is what has the four methods, its own or inherited, and is used as it is', () => {
  const callable = Object.assign(noop, { debug: noop, info: noop, warn: noop, error: noop });
  for (const logger of [undefined, console, new Recorder(), callable]) {
    expect(resolveOptions({ logger }, false).logger).toBe(logger);
  }
});

function logged() {
  const clock = new HeldClock();
  const logger = new Recorder();
  const log = DatabaseLog.of(logger, { path: '/x/a.db', durability: 'sync', clock }) as DatabaseLog;
  return { clock, logger, log, ...log.handlers };
}

const letter = (n: number) => ({
  id: n,
  seq: n,
  table: 't',
  operation: 'put' as const,
  key: 'k',
  acceptedAt: 1,
  firstFailedAt: 1,
  lastFailedAt: 1,
  attempts: 1,
  errorClass: 'permanent' as const,
  errorCode: 'SQLITE_CONSTRAINT_CHECK',
  errorMessage: `refused ${n}`,
  bytes: 1,
});

test('dead letters: those of one moment in one line at once, then at most a line a second', async () => {
  const { clock, logger, log, ...on } = logged();
  const die = (from: number, to: number) => {
    for (let n = from; n <= to; n++) on['dead-letter']?.(letter(n));
  };
  die(1, 3);
  expect(logger.lines).toEqual([]);
  await settle(2);
  for (let n = 4; n <= 100; n++) {
    die(n, n);
    clock.advance(5);
    await settle(1);
  }
  expect(logger.said).toEqual(['warn: SQLite refused 3 writes for good, the last one to t: refused 3']);
  clock.advance(1_000);
  expect(logger.said.slice(1)).toEqual(['warn: SQLite refused 97 writes for good, the last one to t: refused 100']);
  expect(logger.lines[1]?.fields).toEqual({
    db: '/x/a.db',
    count: 97,
    table: 't',
    operation: 'put',
    errorCode: 'SQLITE_CONSTRAINT_CHECK',
    errorMessage: 'refused 100',
  });
  clock.advance(10_000);
  await settle(2);
  expect(logger.lines).toHaveLength(2);
  die(101, 101);
  await settle(2);
  expect(logger.said.slice(2)).toEqual(['warn: SQLite refused a write to t for good: refused 101']);
  // What is not told yet is told before the end.
  die(102, 103);
  on.evicted?.(letter(1));
  log.closed(0);
  expect(logger.said.slice(3)).toEqual([
    'warn: SQLite refused 2 writes for good, the last one to t: refused 103',
    'error: a dead letter was dropped for good, to keep their queue within its limits',
    'info: closed /x/a.db',
  ]);
  await settle(2);
  clock.advance(10_000);
  expect(logger.lines).toHaveLength(6);
});

test('a failure that comes again and again is told once a minute, and a new one at once', () => {
  const { clock, logger, failure } = logged();
  const fail = (during: 'log' | 'flush', message: string) => failure?.({ during, error: new Error(message) });
  for (let second = 0; second < 150; second++) {
    fail('flush', 'database is locked');
    if (second >= 100) fail('log', 'no space');
    clock.advance(1_000);
  }
  expect(logger.said).toEqual([
    'warn: something failed in the flush: database is locked',
    'warn: something failed in the flush: database is locked',
    'warn: something failed in the log: no space',
    'warn: something failed in the flush: database is locked',
  ]);
  expect(logger.lines).toHaveLength(200);
  fail('flush', 'disk I/O error');
  expect(logger.said.at(-1)).toBe('warn: something failed in the flush: disk I/O error');
});

test('a failure with another number in it is the same, and two that take turns are told once each', () => {
  const { clock, logger, failure } = logged();
  for (let second = 0; second < 50; second++) {
    const text = second % 2 === 0 ? 'fdatasync of the log failed' : `ENOSPC, open '/x/a.db-log/00000000${second}.log'`;
    failure?.({ during: 'log', error: new Error(text) });
    clock.advance(1_000);
  }
  expect(logger.said).toEqual([
    'warn: something failed in the log: fdatasync of the log failed',
    "warn: something failed in the log: ENOSPC, open '/x/a.db-log/000000001.log'",
  ]);
});

test('a state that comes and goes is told once a minute, with its end', () => {
  const { clock, logger, state, failure } = logged();
  const error = new Error('database is locked');
  for (let second = 0; second < 90; second++) {
    failure?.({ during: 'flush', error });
    state?.({ previous: 'ok', state: 'degraded', reason: error.message });
    clock.advance(500);
    state?.({ previous: 'degraded', state: 'ok', reason: undefined });
    clock.advance(500);
  }
  const once = [
    'warn: something failed in the flush: database is locked',
    'warn: the database is degraded, it was ok: database is locked',
    'info: the database is ok, it was degraded',
  ];
  expect(logger.said).toEqual([...once, ...once]);
  expect(logger.lines).toHaveLength(270);
});

test('a checkpoint is for debugging, but one that fails', () => {
  const { clock, logger, checkpoint } = logged();
  for (let second = 0; second < 90; second++) {
    for (const result of ['complete', 'partial', 'failed'] as const) checkpoint?.({ result, durationMs: 1 });
    clock.advance(1_000);
  }
  expect(logger.said).toEqual(Array(2).fill("warn: a checkpoint of SQLite's WAL: failed"));
  expect(logger.lines).toHaveLength(270);
});

test('a change of state is as loud as it is bad', () => {
  const { logger, state, failure } = logged();
  const error = new Error('it is broken');
  failure?.({ during: 'flush', error });
  logger.lines.length = 0;
  const reason = error.message;
  for (const [previous, next] of [
    ['ok', 'degraded'],
    ['degraded', 'space'],
    ['space', 'degraded'],
    ['degraded', 'ok'],
    ['ok', 'failed'],
    ['closing', 'failed'],
    ['ok', 'closing'],
    ['closing', 'closed'],
    ['failed', 'closed'],
  ] as const) {
    state?.({ previous, state: next, reason });
  }
  expect(logger.said).toEqual([
    'warn: the database is degraded, it was ok: it is broken',
    'warn: the database is space, it was degraded: it is broken',
    'info: the database is degraded, it was space',
    'info: the database is ok, it was degraded',
    'error: the database is failed, it was ok: it is broken',
    'error: the database is failed, it was closing: it is broken',
  ]);
  expect(logger.lines[0]?.fields).toEqual({ db: '/x/a.db', state: 'degraded', previous: 'ok', err: error });
});
