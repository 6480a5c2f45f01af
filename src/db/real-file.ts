import { readlink, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { codeOf, SluiceError } from '../base/errors.ts';

/** The file with all links resolved, so that two names of one file are one database. */
export async function realFile(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw notOpened(absolute, error);
  }
  // A link whose file is not there yet: SQLite will make the file it names, so the log belongs beside that one.
  const target = await readlink(absolute).catch(() => undefined);
  if (target !== undefined) return realFile(resolve(dirname(absolute), target));
  try {
    return join(await realpath(dirname(absolute)), basename(absolute));
  } catch (error) {
    throw notOpened(absolute, error);
  }
}

function notOpened(path: string, cause: unknown): SluiceError {
  return new SluiceError(
    'SLUICE_INVALID_OPTION',
    `${path} cannot be opened: ${codeOf(cause) ?? ''} on its folder; make the folder first`,
    { cause },
  );
}
