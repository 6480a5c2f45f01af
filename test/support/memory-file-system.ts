import { basename, dirname } from 'node:path';
import type { FileSystem, LogFile } from '../../dist/base/file-system.js';

/** One operation of a file system, before it happens. */
export interface Operation {
  readonly name:
    | 'create'
    | 'openExisting'
    | 'read'
    | 'copy'
    | 'rename'
    | 'unlink'
    | 'list'
    | 'syncDirectory'
    | 'write'
    | 'datasync'
    | 'truncate'
    | 'close';
  readonly path: string;
}

interface Content {
  bytes: Buffer;
  /** What was on the disk at the last datasync. */
  synced: Buffer;
  /** A datasync has failed: the system calls the lost pages clean, and the next datasync succeeds and does nothing. */
  lost: boolean;
}

/**
 * Files in memory. `before` runs ahead of every operation: it can hold it up, and refuse it by throwing. `onWrite` says
 * how many of the bytes a write takes.
 */
export class MemoryFileSystem implements FileSystem {
  readonly files: Map<string, Content> = new Map();
  before: (operation: Operation) => Promise<void> | void = () => {};
  onWrite: (bytes: number) => number = (bytes) => bytes;
  readonly operations: Operation[] = [];

  async create(path: string): Promise<LogFile> {
    await this.#enter('create', path);
    if (this.files.has(path)) throw errorOf('EEXIST', path);
    this.files.set(path, { bytes: Buffer.alloc(0), synced: Buffer.alloc(0), lost: false });
    return new MemoryFile(this, path, this.#content(path), (name) => this.#enter(name, path));
  }

  async openExisting(path: string): Promise<LogFile> {
    await this.#enter('openExisting', path);
    return new MemoryFile(this, path, this.#content(path), (name) => this.#enter(name, path));
  }

  async read(path: string): Promise<Uint8Array> {
    await this.#enter('read', path);
    return Uint8Array.from(this.#content(path).bytes);
  }

  async writeNote(path: string, text: string): Promise<void> {
    this.files.set(path, { bytes: Buffer.from(text), synced: Buffer.alloc(0), lost: false });
  }

  async readNote(path: string): Promise<string | undefined> {
    return this.files.get(path)?.bytes.toString();
  }

  async copy(from: string, to: string): Promise<void> {
    await this.#enter('copy', from);
    if (this.files.has(to)) throw errorOf('EEXIST', to);
    const bytes = Buffer.from(this.#content(from).bytes);
    this.files.set(to, { bytes, synced: Buffer.alloc(0), lost: false });
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#enter('rename', from);
    this.files.set(to, this.#content(from));
    this.files.delete(from);
  }

  async unlink(path: string): Promise<void> {
    await this.#enter('unlink', path);
    this.#content(path);
    this.files.delete(path);
  }

  async list(path: string): Promise<string[]> {
    await this.#enter('list', path);
    return [...this.files.keys()].filter((name) => dirname(name) === path).map((name) => basename(name));
  }

  async makeDirectory(): Promise<void> {}

  async removeDirectory(path: string): Promise<void> {
    for (const name of this.files.keys()) if (dirname(name) === path) this.files.delete(name);
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#enter('syncDirectory', path);
  }

  /** Names and contents, to compare and to begin again from. */
  snapshot(): Map<string, Buffer> {
    return new Map([...this.files].map(([path, { bytes }]) => [path, Buffer.from(bytes)]));
  }

  static from(files: ReadonlyMap<string, Buffer>): MemoryFileSystem {
    const made = new MemoryFileSystem();
    for (const [path, bytes] of files)
      made.files.set(path, { bytes: Buffer.from(bytes), synced: Buffer.from(bytes), lost: false });
    return made;
  }

  /** The power goes: of each file, only what was synced is still there. */
  afterPowerCut(): MemoryFileSystem {
    return MemoryFileSystem.from(new Map([...this.files].map(([path, { synced }]) => [path, synced])));
  }

  async #enter(name: Operation['name'], path: string): Promise<void> {
    const operation = { name, path };
    this.operations.push(operation);
    await this.before(operation);
  }

  #content(path: string): Content {
    const content = this.files.get(path);
    if (content === undefined) throw errorOf('ENOENT', path);
    return content;
  }
}

class MemoryFile implements LogFile {
  readonly #system: MemoryFileSystem;
  readonly #path: string;
  readonly #content: Content;
  readonly #enter: (name: Operation['name']) => Promise<void>;
  #open = true;

  constructor(
    system: MemoryFileSystem,
    path: string,
    content: Content,
    enter: (name: Operation['name']) => Promise<void>,
  ) {
    this.#system = system;
    this.#path = path;
    this.#content = content;
    this.#enter = enter;
  }

  async write(bytes: Uint8Array, position: number): Promise<number> {
    this.#check();
    await this.#enter('write');
    this.#check();
    const taken = Math.min(bytes.length, this.#system.onWrite(bytes.length));
    const length = Math.max(this.#content.bytes.length, position + taken);
    const grown = Buffer.alloc(length);
    grown.set(this.#content.bytes);
    grown.set(bytes.subarray(0, taken), position);
    this.#content.bytes = grown;
    return taken;
  }

  async datasync(): Promise<void> {
    this.#check();
    const bytes = Buffer.from(this.#content.bytes);
    try {
      await this.#enter('datasync');
    } catch (error) {
      this.#content.lost = true;
      throw error;
    }
    this.#check();
    if (!this.#content.lost) this.#content.synced = bytes;
  }

  async truncate(length: number): Promise<void> {
    this.#check();
    await this.#enter('truncate');
    this.#content.bytes = Buffer.from(this.#content.bytes.subarray(0, length));
  }

  async close(): Promise<void> {
    this.#check();
    await this.#enter('close');
    this.#open = false;
  }

  #check(): void {
    if (!this.#open) throw errorOf('EBADF', this.#path);
  }
}

export function errorOf(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
