import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import { listOf } from './codec.ts';

/** Several entries: anything that yields pairs (a `Map` does), or a plain object. */
export type Entries<T> = Iterable<readonly [key: string, value: T]> | Readonly<Record<string, T>>;

/** The entries as pairs; whether key and value can be written is not looked at. */
export function entriesOf<T>(entries: Entries<T>): (readonly [key: string, value: T])[] {
  return listOf(pairsOf(entries), 'entries').map((pair) => {
    if (Array.isArray(pair)) return pair as unknown as readonly [string, T];
    throw new SluiceError('SLUICE_INVALID_VALUE', `an entry must be a pair of key and value, not ${show(pair)}`);
  });
}

function pairsOf<T>(entries: Entries<T>): Iterable<readonly [string, T]> {
  if (typeof entries !== 'object' || entries === null) {
    throw new SluiceError(
      'SLUICE_INVALID_VALUE',
      `entries must be an iterable of pairs or an object, not ${show(entries)}`,
    );
  }
  return Symbol.iterator in entries
    ? (entries as Iterable<readonly [string, T]>)
    : Object.entries(entries as Record<string, T>);
}
