import { SluiceError, type SluiceErrorCode } from 'sluicedb';
import { expect } from 'vitest';

const LIMIT_MS = 15_000;

/** Waits until a condition holds, and fails if it never does. */
export async function eventually(
  holds: () => boolean | Promise<boolean>,
  what: string,
  limitMs = LIMIT_MS,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${limitMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Lets everything that is due in this process run: promises, I/O callbacks that are there, immediates. */
export async function settle(turns = 20): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** Whether a promise is settled, seen after everything due has run. */
export async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  await settle(3);
  const winner = await Promise.race([promise.catch(() => undefined), Promise.resolve(pending)]);
  return winner === pending;
}

/** The SluiceError that a call throws or rejects with; fails on anything else. */
export async function refusal(call: () => unknown): Promise<SluiceError> {
  let result: unknown;
  try {
    result = await call();
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(SluiceError);
    return error as SluiceError;
  }
  throw new Error(`was not refused: ${JSON.stringify(result)}`);
}

/** The code a call is refused with. */
export async function codeFrom(call: () => unknown): Promise<SluiceErrorCode> {
  return (await refusal(call)).code;
}
