/** A table name as SQL compares it: it does not tell the upper from the lower case of ASCII letters. */
export function foldName(name: string): string {
  return /[A-Z]/.test(name) ? name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : name;
}
