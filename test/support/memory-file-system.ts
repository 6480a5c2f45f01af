import type { FileSystem, LogFile } from '../../dist/base/file-system.js';
import { Disk, type DiskImage, type DiskOperation, PROCESS_CRASH, type Survival } from './power-loss.ts';

const NOTHING: Survival = { data: 'none', names: 'none' };

export const OPERATIONS = [
  'create',
  'openExisting',
  'read',
  'copy',
  'rename',
  'unlink',
  'list',
  'makeDirectory',
  'removeDirectory',
  'syncDirectory',
  'write',
  'datasync',
  'truncate',
  'close',
  'writeNote',
  'readNote',
] as const;

/** One operation of a file system, before it happens. */
export interface Operation {
  readonly name: (typeof OPERATIONS)[number];
  readonly path: string;
  /** How many bytes a write is asked for. */
  readonly bytes: number;
}

/**
 * The simulated disk. Everything that is done to it is in `history`, of which `power-loss.ts` says what it can look like
 * after a power cut at any point. `before` runs ahead of every operation: it can hold it up, and refuse it by throwing.
 * `onWrite` says how many of the bytes a write takes.
 */
export class MemoryFileSystem implements FileSystem {
  before: (operation: Operation) => Promise<void> | void = () => {};
  onWrite: (bytes: number) => number = (bytes) => bytes;
  readonly operations: Operation[] = [];
  readonly history: DiskOperation[] = [];
  readonly #disk: Disk;
  static #inodes = 0;

  /** On a disk that a process before this one has left, what it had not synced included. */
  constructor(disk: Disk = new Disk()) {
    this.#disk = disk;
  }

  static from(image: DiskImage | ReadonlyMap<string, Buffer>): MemoryFileSystem {
    return new MemoryFileSystem(Disk.from('files' in image ? image : { files: image, directories: new Set() }));
  }

  async create(path: string): Promise<LogFile> {
    await this.#enter('create', path);
    if (this.#disk.has(path)) throw errorOf('EEXIST', path);
    return this.#open(path);
  }

  async openExisting(path: string): Promise<LogFile> {
    await this.#enter('openExisting', path);
    this.#content(path);
    return this.#open(path);
  }

  async read(path: string): Promise<Uint8Array> {
    await this.#enter('read', path);
    return Uint8Array.from(this.#content(path));
  }

  async writeNote(path: string, text: string): Promise<void> {
    await this.#enter('writeNote', path);
    const inode = this.#name(path, true);
    this.record({ kind: 'write', inode, offset: 0, bytes: Buffer.from(text) });
  }

  async readNote(path: string): Promise<string | undefined> {
    await this.#enter('readNote', path);
    return this.#disk.read(path)?.toString();
  }

  async copy(from: string, to: string): Promise<void> {
    await this.#enter('copy', from);
    if (this.#disk.has(to)) throw errorOf('EEXIST', to);
    const bytes = Buffer.from(this.#content(from));
    this.record({ kind: 'write', inode: this.#name(to), offset: 0, bytes });
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#enter('rename', from);
    this.#content(from);
    this.record({ kind: 'rename', from, to });
  }

  async unlink(path: string): Promise<void> {
    await this.#enter('unlink', path);
    this.#content(path);
    this.record({ kind: 'unlink', path });
  }

  async list(path: string): Promise<string[]> {
    await this.#enter('list', path);
    return this.#disk.list(path);
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#enter('makeDirectory', path);
    if (!this.#disk.has(path)) this.record({ kind: 'mkdir', path });
  }

  async removeDirectory(path: string): Promise<void> {
    await this.#enter('removeDirectory', path);
    if (this.#disk.has(path)) this.record({ kind: 'rmdir', path });
  }

  async syncDirectory(path: string): Promise<void> {
    try {
      await this.#enter('syncDirectory', path);
    } catch (error) {
      this.record({ kind: 'syncDirectory', path, failed: true });
      throw error;
    }
    this.record({ kind: 'syncDirectory', path });
  }

  /** Does it to the disk, or writes down what is no operation of the disk. */
  record(operation: DiskOperation): void {
    this.history.push(operation);
    this.#disk.apply(operation);
  }

  /** Names and contents as a process sees them, to compare and to begin again from. */
  snapshot(): Map<string, Buffer> {
    return new Map(this.#disk.image(PROCESS_CRASH, Math.random).files);
  }

  /** The same files once more, as a process that starts after this one has died would find them. */
  image(): MemoryFileSystem {
    return MemoryFileSystem.from(this.snapshot());
  }

  /** The power goes: only files whose name was synced are there, and of each only what was, unless said otherwise. */
  afterPowerCut(survival: Survival = NOTHING, random: () => number = Math.random): MemoryFileSystem {
    return MemoryFileSystem.from(this.imageAfterPowerCut(survival, random));
  }

  imageAfterPowerCut(survival: Survival, random: () => number): DiskImage {
    return this.#disk.image(survival, random);
  }

  async enterFile(name: Operation['name'], path: string, bytes = 0): Promise<void> {
    await this.#enter(name, path, bytes);
  }

  async #enter(name: Operation['name'], path: string, bytes = 0): Promise<void> {
    const operation = { name, path, bytes };
    this.operations.push(operation);
    await this.before(operation);
  }

  #content(path: string): Buffer {
    const content = this.#disk.read(path);
    if (content === undefined) throw errorOf('ENOENT', path);
    return content;
  }

  #name(path: string, truncate = false): number {
    const inode = ++MemoryFileSystem.#inodes;
    this.record({ kind: 'open', path, inode, truncate });
    return inode;
  }

  #open(path: string): LogFile {
    return new MemoryFile(this, path, this.#name(path));
  }
}

class MemoryFile implements LogFile {
  readonly #system: MemoryFileSystem;
  readonly #path: string;
  readonly #inode: number;
  #open = true;
  #changes = 0;

  constructor(system: MemoryFileSystem, path: string, inode: number) {
    this.#system = system;
    this.#path = path;
    this.#inode = inode;
  }

  async write(bytes: Uint8Array, position: number): Promise<number> {
    await this.#enter('write', bytes.length);
    const taken = Math.min(bytes.length, this.#system.onWrite(bytes.length));
    if (taken > 0) {
      this.#changes++;
      this.#system.record({
        kind: 'write',
        inode: this.#inode,
        offset: position,
        bytes: Uint8Array.from(bytes.subarray(0, taken)),
      });
    }
    return taken;
  }

  async datasync(): Promise<void> {
    const changes = this.#changes;
    try {
      await this.#enter('datasync');
    } catch (error) {
      this.#system.record({ kind: 'sync', inode: this.#inode, failed: true });
      throw error;
    }
    // Which of the two the sync would cover nobody could say.
    if (this.#changes !== changes) throw new Error(`${this.#path} is written while it is synced`);
    this.#system.record({ kind: 'sync', inode: this.#inode });
  }

  async truncate(length: number): Promise<void> {
    await this.#enter('truncate');
    this.#changes++;
    this.#system.record({ kind: 'truncate', inode: this.#inode, size: length });
  }

  async close(): Promise<void> {
    await this.#enter('close');
    this.#open = false;
  }

  async #enter(name: Operation['name'], bytes?: number): Promise<void> {
    this.#check();
    await this.#system.enterFile(name, this.#path, bytes);
    this.#check();
  }

  #check(): void {
    if (!this.#open) throw errorOf('EBADF', this.#path);
  }
}

export function errorOf(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
