import { InvalidArgumentError } from 'commander';

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

export function collect(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}
