/** So many characters are looked at in one go: with 7 bits each they leave room in a double for the place of an entry. */
const CHARACTERS = 5;
const PLACES = 2 ** 18;
/** In the place of every character from here on. */
const OTHER = 127;

/** Fewer than so many lie in a few pages of SQLite's anyway. */
const GROUP_MIN = 32;

/**
 * Entries about in the order of their keys, so that neighbours go to one page of SQLite's index while it is at hand. A few
 * characters at a time are made a number, and numbers are sorted without a call for each comparison: that is no exact order,
 * and has an eighth of its price. Keys that differ in characters other than ASCII are compared.
 */
export function inKeyOrder<T extends { readonly key: string }>(entries: readonly T[]): T[] {
  const ordered = [...entries];
  /** Stretches of entries that are equal before the character `from`. */
  const left = [{ start: 0, end: ordered.length, from: 0 }];
  for (let stretch = left.pop(); stretch !== undefined; stretch = left.pop()) {
    const { start, end } = stretch;
    const before = ordered.slice(start, end);
    const from = endOfCommonPart(before, stretch.from);
    const numbers = new Float64Array(before.length);
    for (let i = 0; i < before.length; i++) numbers[i] = charactersAt((before[i] as T).key, from) * PLACES + i;
    numbers.sort();
    let [groupStart, groupOf] = [0, -1];
    for (let i = 0; i <= numbers.length; i++) {
      const number = numbers[i] ?? Number.POSITIVE_INFINITY;
      const characters = Math.floor(number / PLACES);
      if (i < numbers.length) ordered[start + i] = before[number - characters * PLACES] as T;
      if (characters === groupOf) continue;
      // Where it is 0, the keys have no more characters.
      if (i - groupStart >= GROUP_MIN && groupOf > 0) {
        const group = { start: start + groupStart, end: start + i, from: from + CHARACTERS };
        if (isAscii(groupOf)) left.push(group);
        else sortByKey(ordered, group);
      }
      [groupStart, groupOf] = [i, characters];
    }
  }
  return ordered;
}

/** Up to where all keys are the same that are the same up to `from`. */
function endOfCommonPart(entries: readonly { readonly key: string }[], from: number): number {
  const first = entries[0]?.key ?? '';
  let end = first.length;
  for (const { key } of entries) {
    let at = from;
    while (at < end && key.charCodeAt(at) === first.charCodeAt(at)) at++;
    end = Math.min(end, at);
  }
  return end;
}

interface Stretch {
  readonly start: number;
  readonly end: number;
}

function sortByKey<T extends { readonly key: string }>(entries: T[], { start, end }: Stretch): void {
  const sorted = entries.slice(start, end).sort((a, b) => (a.key < b.key ? -1 : 1));
  for (const [i, entry] of sorted.entries()) entries[start + i] = entry;
}

/** Whether all of these characters can be told from each other. */
function isAscii(characters: number): boolean {
  for (let left = characters; left > 0; left = Math.floor(left / 128)) if (left % 128 === OTHER) return false;
  return true;
}

function charactersAt(key: string, from: number): number {
  let number = 0;
  for (let at = from; at < from + CHARACTERS; at++) {
    number = number * 128 + (at < key.length ? Math.min(OTHER, key.charCodeAt(at)) : 0);
  }
  return number;
}
