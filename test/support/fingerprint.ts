import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Everything in a folder: names, sizes, times of change, content. No file in it may be open in this process. */
export function fingerprint(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    const path = join(folder, name);
    const stats = lstatSync(path);
    const content = stats.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
    // Files come and go in a folder while it is looked at, and are gone again afterwards.
    found[name] = stats.isFile() ? `${stats.size} bytes, ${stats.mtimeMs}, ${stats.ino}, ${content}` : 'folder';
  }
  return found;
}
