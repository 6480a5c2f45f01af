import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../..');

/** Why no library can be put between a process and its system calls here, if so. */
export const NO_PRELOAD: string | undefined = whyNot();

function whyNot(): string | undefined {
  if (process.platform !== 'linux') return `LD_PRELOAD is Linux's, this is ${process.platform}`;
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'there is no C compiler by the name of cc';
  }
}

/** A library for LD_PRELOAD, made from `test/support/<name>.c` the first time that it is asked for with this text. */
export function compiled(name: string): string {
  const source = join(ROOT, 'test/support', `${name}.c`);
  const folder = join(ROOT, 'build/preload');
  const library = join(
    folder,
    `${name}-${createHash('sha1').update(readFileSync(source)).digest('hex').slice(0, 12)}.so`,
  );
  if (existsSync(library)) return library;
  mkdirSync(folder, { recursive: true });
  // Several test files may be at it at a time: each makes a whole one, and the last name wins.
  const made = `${library}.${process.pid}`;
  const options = ['-shared', '-fPIC', '-O1', '-Wall', '-U_FORTIFY_SOURCE'];
  execFileSync('cc', [...options, '-o', made, source, '-ldl', '-lpthread']);
  renameSync(made, library);
  return library;
}
