/** Adds `more` at the end of `list`, up to a length of `max`; returns how many there was no room for. */
export function appendUpTo<T>(list: T[], more: readonly T[], max: number): number {
  const room = Math.max(0, max - list.length);
  // One by one: `push(...more)` puts them on the stack, which has no room for some 100,000.
  for (const each of more.length <= room ? more : more.slice(0, room)) list.push(each);
  return Math.max(0, more.length - room);
}
