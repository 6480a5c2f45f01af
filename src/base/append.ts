/** Adds all of `more` at the end of `list`. `push(...more)` puts them on the stack, which has no room for some 100,000. */
export function append<T>(list: T[], more: readonly T[]): void {
  for (const each of more) list.push(each);
}
