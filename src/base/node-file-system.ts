import * as fs from 'node:fs';
import * as fsp from 'node:fs/promises';
import { codeOf } from './errors.ts';
import type { FileSystem, LogFile } from './file-system.ts';

/** The machine's own disk. File operations use the callback API: half the cost of a FileHandle per group commit. */
export const nodeFileSystem: FileSystem = {
  create: (path) => openFile(path, 'wx'),
  openExisting: (path) => openFile(path, 'r+'),
  read: (path) => fsp.readFile(path),
  writeNote: (path, text) => fsp.writeFile(path, text),
  async readNote(path) {
    try {
      return await fsp.readFile(path, 'utf8');
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  },
  copy: (from, to) => fsp.copyFile(from, to, fs.constants.COPYFILE_EXCL),
  rename: (from, to) => fsp.rename(from, to),
  unlink: (path) => fsp.unlink(path),
  async list(path) {
    try {
      return await fsp.readdir(path);
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw error;
    }
  },
  async makeDirectory(path) {
    try {
      await fsp.mkdir(path);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  },
  removeDirectory: (path) => fsp.rm(path, { recursive: true, force: true }),
  async syncDirectory(path) {
    const directory = await fsp.open(path, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  },
};

function openFile(path: string, flags: string): Promise<LogFile> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, (error, descriptor) => {
      if (error) reject(error);
      else resolve(new NodeFile(descriptor));
    });
  });
}

class NodeFile implements LogFile {
  readonly #descriptor: number;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(bytes: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.write(this.#descriptor, bytes, 0, bytes.length, position, (error, written) => {
        if (error) reject(error);
        else resolve(written);
      });
    });
  }

  datasync(): Promise<void> {
    return this.#call((done) => fs.fdatasync(this.#descriptor, done));
  }

  truncate(length: number): Promise<void> {
    return this.#call((done) => fs.ftruncate(this.#descriptor, length, done));
  }

  close(): Promise<void> {
    return this.#call((done) => fs.close(this.#descriptor, done));
  }

  #call(start: (done: (error: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      start((error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  }
}
