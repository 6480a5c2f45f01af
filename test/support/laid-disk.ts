import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DiskImage } from './power-loss.ts';

/** Memory, where there is some to be had as a disk: what is laid there is looked at once, and deleted. */
const FAST = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** Lays the files of a disk into a folder of its own. */
export function layOut(image: DiskImage): string {
  const folder = mkdtempSync(join(FAST, 'sluice-storm-'));
  layInto(folder, image);
  return folder;
}

export function layInto(folder: string, { files, directories }: DiskImage): void {
  for (const directory of [...directories].sort()) mkdirSync(join(folder, directory), { recursive: true });
  for (const [path, bytes] of files) writeFileSync(join(folder, path), bytes);
}
