import { InvalidArgumentError } from 'commander';
import { readTime } from '../base/read-time.ts';

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** A whole number; what range it must be in is for the options of the library to say. */
export function integer(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** A size: `1048576`, `64k`, `16m`, `1g`. */
export function bytes(text: string): number {
  const [, digits, unit] = /^(\d{1,12})([kmg]?)(?:i?b)?$/i.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('It must be a size, such as 1048576, 64k, 16m or 1g.');
  return Number(digits) * (UNITS[(unit ?? '').toLowerCase()] as number);
}

const SPANS: Readonly<Record<string, number>> = { '': 1, ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A span of time, in milliseconds: `1500`, `30s`, `15m`, `12h`, `7d`. */
export function duration(text: string): number {
  const [, digits, unit] = /^(\d{1,15})(ms|[smhd])?$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('It must be a time in ms, or such as 30s, 15m, 12h or 7d.');
  return Number(digits) * (SPANS[unit ?? ''] as number);
}

/** A point in time: ISO 8601 with its zone, or milliseconds since 1970. */
export function time(text: string): number {
  const ms = readTime(text);
  if (ms === undefined) {
    throw new InvalidArgumentError('It must be ISO 8601 with its zone, such as 2026-03-01T12:00:00Z or 2026-03-01.');
  }
  return ms;
}

/** A number, with a fraction or without. */
export function decimal(text: string): number {
  if (!/^\d{1,15}(\.\d{1,15})?$/.test(text)) throw new InvalidArgumentError('It must be a number.');
  return Number(text);
}

export function collect(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}
