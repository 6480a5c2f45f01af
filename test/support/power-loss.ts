import { posix } from 'node:path';

/**
 * What a disk can look like after a power cut: the one model behind the simulated disk and behind the replay of a
 * recorded process.
 *
 * A disk's history is a list of operations. After any of them the power may go. Then there is
 * - of each file, what its last successful sync covered, and of what was written or truncated since: nothing, all, a
 *   prefix (whose last write may be torn at any byte), or for each block of 512 or of 4,096 bytes its own choice between
 *   the synced content and each later one. The size makes a choice of its own, so that a file may have grown over blocks
 *   that never came: they read as zeros. A truncation is a matter of the size, and is there whole or not at all.
 * - of each directory, the names at its last sync, and of what was made, renamed and unlinked since: nothing, all, a
 *   prefix, or for each name its own prefix. A rename inside one directory is one step; between two directories each of
 *   them has its half. What lies in a directory that is not there is not there either.
 *
 * A sync that fails makes nothing durable, and what it was to carry counts as clean: no later sync brings it, though a
 * process that reads sees it until the power goes, and any of it may be on the disk by chance. A sync of a directory that
 * fails leaves its names to the next one: file systems that cannot write their journal stop, they do not forget.
 *
 * Sources: "All File Systems Are Not Created Equal" (ALICE, OSDI '14) for appends that are not atomic and names that need
 * a sync of their own; SQLite's crash simulation in test_vfs and test6.c for sectors that are each old or new; Pebble's
 * strict MemFS with its CrashClone for names and for blocks of 4,096 bytes; LazyFS (VLDB '24) for torn writes; Craig
 * Ringer's fsync report of 2018 and "Can Applications Recover from fsync Failures?" (ATC '20) for what a failed sync does.
 *
 * Crueller than ext4 and XFS, which both: make a new file's name durable with its first fsync; never let a rename come
 * before what was renamed there earlier in the same directory; keep all metadata in order (here each name, each size and
 * each block is on its own); do not show zeros under a size that grew with a delayed allocation; write a page again with
 * all its bytes when a byte of it changes after a failed sync (here the lost bytes stay lost).
 *
 * Not in the model: a disk that says it has synced and has not, and one that damages what it had.
 */
export type DiskOperation =
  /** Makes a file where the name is free, and says from here on which one the number means. */
  | { readonly kind: 'open'; readonly path: string; readonly inode: number; readonly truncate?: boolean }
  | { readonly kind: 'write'; readonly inode: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'truncate'; readonly inode: number; readonly size: number }
  | { readonly kind: 'sync'; readonly inode: number; readonly failed?: boolean }
  /** What was named `to` before is replaced. */
  | { readonly kind: 'rename' | 'link'; readonly from: string; readonly to: string }
  | { readonly kind: 'unlink' | 'mkdir' | 'rmdir'; readonly path: string }
  | { readonly kind: 'syncDirectory'; readonly path: string; readonly failed?: boolean }
  /** Nothing of the disk's: whoever records says what was true from here on, an acknowledgement say. */
  | { readonly kind: 'mark'; readonly note: unknown };

/** What is left of that which was not synced. */
export interface Survival {
  /** A number: each block of that many bytes makes its own choice. */
  readonly data: 'none' | 'all' | 'prefix' | number;
  readonly names: 'none' | 'all' | 'prefix' | 'random';
}

export const DATA_SURVIVALS: readonly Survival['data'][] = ['none', 'all', 'prefix', 512, 4096];
export const NAME_SURVIVALS: readonly Survival['names'][] = ['none', 'all', 'prefix', 'random'];

export const SURVIVALS: readonly Survival[] = DATA_SURVIVALS.flatMap((data) =>
  NAME_SURVIVALS.map((names) => ({ data, names })),
);

/** Only the process is gone: the system still has everything that it was handed. */
export const PROCESS_CRASH: Survival = { data: 'all', names: 'all' };

export interface DiskImage {
  /** Path and content of each file. */
  readonly files: ReadonlyMap<string, Buffer>;
  readonly directories: ReadonlySet<string>;
}

/** The disk as it could stand when the power goes after the first `at` operations of a history. */
export function imageAfter(
  history: readonly DiskOperation[],
  at: number,
  survival: Survival,
  random: () => number,
  base?: DiskImage,
): DiskImage {
  const disk = Disk.from(base);
  for (const operation of history.slice(0, at)) disk.apply(operation);
  return disk.image(survival, random);
}

/** Follows a history operation by operation: `image` can be asked for after each, which is cheaper than `imageAfter`. */
export class Disk {
  readonly #root = new Directory();
  readonly #inodes = new Map<number, File>();

  /** A disk that has been through a power cut: what is there is on it for good. */
  static from(base: DiskImage | undefined): Disk {
    const disk = new Disk();
    for (const path of [...(base?.directories ?? [])].sort()) disk.#directory(path);
    for (const [path, bytes] of base?.files ?? []) {
      const [directory, name] = disk.#place(path);
      directory.put(name, new File(bytes));
      directory.sync();
    }
    return disk;
  }

  apply(operation: DiskOperation): void {
    switch (operation.kind) {
      case 'open': {
        const [directory, name] = this.#place(operation.path);
        let file = directory.current.get(name);
        if (!(file instanceof File)) {
          file = new File();
          directory.put(name, file);
        }
        this.#inodes.set(operation.inode, file as File);
        if (operation.truncate === true && (file as File).bytes.length > 0) (file as File).truncate(0);
        return;
      }
      case 'write':
        return this.#file(operation.inode).write(operation.offset, operation.bytes);
      case 'truncate':
        return this.#file(operation.inode).truncate(operation.size);
      case 'sync':
        return this.#file(operation.inode).sync(operation.failed === true);
      case 'rename':
        return this.#rename(operation.from, operation.to);
      case 'link': {
        const [directory, name] = this.#place(operation.to);
        return directory.put(name, this.#node(operation.from));
      }
      case 'unlink':
      case 'rmdir': {
        const [directory, name] = this.#place(operation.path);
        return directory.change([[name, undefined]]);
      }
      case 'mkdir': {
        const [directory, name] = this.#place(operation.path);
        return directory.put(name, new Directory());
      }
      case 'syncDirectory':
        if (operation.failed !== true) this.#directory(operation.path).sync();
        return;
      case 'mark':
        return;
    }
  }

  /** What a process reads: the newest content, synced or not. */
  read(path: string): Buffer | undefined {
    const [directory, name] = this.#place(path);
    const node = directory.current.get(name);
    return node instanceof File ? node.bytes : undefined;
  }

  has(path: string): boolean {
    const [directory, name] = this.#place(path);
    return directory.current.has(name);
  }

  /** Names in a directory, as a process sees them. */
  list(path: string): string[] {
    return [...this.#directory(path).current.keys()];
  }

  image({ data, names }: Survival, random: () => number): DiskImage {
    const files = new Map<string, Buffer>();
    const directories = new Set<string>();
    const contents = new Map<File, Buffer>();
    const walk = (directory: Directory, path: string) => {
      for (const [name, node] of directory.image(names, random)) {
        const full = posix.join(path, name);
        if (node instanceof Directory) {
          directories.add(full);
          walk(node, full);
          continue;
        }
        // Two names of one file, where a rename was lost by halves, show the same.
        const content = contents.get(node) ?? node.image(data, random);
        contents.set(node, content);
        files.set(full, content);
      }
    };
    walk(this.#root, '/');
    return { files, directories };
  }

  #file(inode: number): File {
    const file = this.#inodes.get(inode);
    if (file === undefined) throw new Error(`nothing says which file ${inode} is`);
    return file;
  }

  #node(path: string): Node {
    const [directory, name] = this.#place(path);
    const node = directory.current.get(name);
    if (node === undefined) throw new Error(`${path} is not there`);
    return node;
  }

  /** A directory that no operation has made was there before. */
  #directory(path: string): Directory {
    let directory = this.#root;
    for (const name of path.split('/').filter((part) => part !== '')) {
      let next = directory.current.get(name);
      if (next === undefined) {
        next = new Directory();
        directory.current.set(name, next);
        directory.durable.set(name, next);
      }
      if (!(next instanceof Directory)) throw new Error(`${path} is no directory`);
      directory = next;
    }
    return directory;
  }

  #place(path: string): [Directory, string] {
    return [this.#directory(posix.dirname(path)), posix.basename(path)];
  }

  #rename(from: string, to: string): void {
    const [source, oldName] = this.#place(from);
    const [target, newName] = this.#place(to);
    const node = this.#node(from);
    if (source === target) {
      source.change([
        [oldName, undefined],
        [newName, node],
      ]);
      return;
    }
    target.put(newName, node);
    source.change([[oldName, undefined]]);
  }
}

type Node = File | Directory;

/** Names that change in one step; `undefined` for a name that goes. */
type NameChange = readonly (readonly [name: string, node: Node | undefined])[];

class Directory {
  readonly current = new Map<string, Node>();
  durable = new Map<string, Node>();
  #pending: NameChange[] = [];

  put(name: string, node: Node): void {
    this.change([[name, node]]);
  }

  change(change: NameChange): void {
    this.#pending.push(change);
    perform(this.current, change);
  }

  sync(): void {
    this.durable = new Map(this.current);
    this.#pending = [];
  }

  image(survival: Survival['names'], random: () => number): ReadonlyMap<string, Node> {
    if (survival === 'none' || this.#pending.length === 0) return this.durable;
    if (survival === 'all') return this.current;
    const names = new Map(this.durable);
    if (survival === 'prefix') {
      for (const change of this.#pending.slice(0, upTo(this.#pending.length, random))) perform(names, change);
      return names;
    }
    // Once a name has missed a step it stays as it is, and so does what was to change together with it.
    const behind = new Set<string>();
    for (const change of this.#pending) {
      if (change.some(([name]) => behind.has(name)) || random() < 0.4) for (const [name] of change) behind.add(name);
      else perform(names, change);
    }
    return names;
  }
}

function perform(names: Map<string, Node>, change: NameChange): void {
  for (const [name, node] of change) {
    if (node === undefined) names.delete(name);
    else names.set(name, node);
  }
}

interface Change {
  /** Where it begins to have an effect. */
  readonly at: number;
  /** `undefined` for a truncation to `at`. */
  readonly bytes: Uint8Array | undefined;
  /** `orphaned`: the sync that was to carry it has failed. */
  state: 'dirty' | 'orphaned' | 'durable';
}

class File {
  readonly #base: Content;
  readonly #current: Content;
  #changes: Change[] = [];

  constructor(bytes: Uint8Array = new Uint8Array()) {
    this.#base = new Content(bytes);
    this.#current = new Content(bytes);
  }

  get bytes(): Buffer {
    return this.#current.bytes;
  }

  write(at: number, bytes: Uint8Array): void {
    this.#change({ at, bytes: Uint8Array.from(bytes), state: 'dirty' });
  }

  truncate(at: number): void {
    this.#change({ at, bytes: undefined, state: 'dirty' });
  }

  sync(failed: boolean): void {
    for (const change of this.#changes) if (change.state === 'dirty') change.state = failed ? 'orphaned' : 'durable';
    const settled = this.#changes.findIndex(({ state }) => state !== 'durable');
    for (const change of this.#changes.splice(0, settled < 0 ? this.#changes.length : settled)) {
      this.#base.apply(change);
    }
  }

  image(survival: Survival['data'], random: () => number): Buffer {
    const changes = this.#changes;
    if (changes.length === 0) return this.#base.copy().bytes;
    switch (survival) {
      case 'none':
        return this.#version(0).bytes;
      case 'all':
        return this.#current.copy().bytes;
      case 'prefix': {
        const count = upTo(changes.length, random);
        const next = changes[count];
        const torn =
          next?.bytes === undefined || random() < 0.3
            ? undefined
            : next.bytes.subarray(0, upTo(next.bytes.length, random));
        return this.#version(count, torn).bytes;
      }
      default:
        return this.#blocks(survival, random);
    }
  }

  #change(change: Change): void {
    this.#changes.push(change);
    this.#current.apply(change);
  }

  /** The file after its first `count` changes, a part of the next one, and all that is durable. */
  #version(count: number, torn?: Uint8Array): Content {
    const content = this.#base.copy();
    for (const [i, change] of this.#changes.entries()) {
      if (i < count || change.state === 'durable') content.apply(change);
      else if (i === count && torn !== undefined && torn.length > 0) content.apply({ ...change, bytes: torn });
    }
    return content;
  }

  #blocks(size: number, random: () => number): Buffer {
    const count = this.#changes.length;
    const cutoffs = new Map<number, number>();
    const cutoffOf = (block: number) => {
      let cutoff = cutoffs.get(block);
      if (cutoff === undefined) {
        const luck = random();
        cutoff = luck < 0.35 ? 0 : luck < 0.7 ? count : upTo(count, random);
        cutoffs.set(block, cutoff);
      }
      return cutoff;
    };
    const content = this.#base.copy();
    for (const [i, { at, bytes, state }] of this.#changes.entries()) {
      if (bytes === undefined) {
        // It changes the size, which is one thing: no disk forgets single blocks of a file that keeps its length.
        if (state === 'durable' || i < cutoffOf(SIZE)) content.resize(Math.min(at, content.size));
        continue;
      }
      const end = at + bytes.length;
      for (let from = at; from < end; ) {
        const block = Math.floor(from / size);
        const to = Math.min(end, (block + 1) * size);
        if (state === 'durable' || i < cutoffOf(block)) content.put(from, bytes.subarray(from - at, to - at));
        from = to;
      }
    }
    content.resize(this.#version(cutoffOf(SIZE)).size);
    return content.bytes;
  }
}

/** Of the choices that a file makes for its blocks, the one for its size. */
const SIZE = -1;

/** Bytes that grow in place. */
class Content {
  size: number;
  #buffer: Buffer;

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes);
    this.size = bytes.length;
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.size);
  }

  copy(): Content {
    return new Content(this.bytes);
  }

  apply({ at, bytes }: Change): void {
    if (bytes === undefined) this.resize(at);
    else this.put(at, bytes);
  }

  put(at: number, bytes: Uint8Array): void {
    if (at + bytes.length > this.size) this.resize(at + bytes.length);
    this.#buffer.set(bytes, at);
  }

  resize(size: number): void {
    if (size > this.#buffer.length) {
      const grown = Buffer.alloc(Math.max(size, this.#buffer.length * 2));
      grown.set(this.bytes);
      this.#buffer = grown;
    }
    if (size < this.size) this.#buffer.fill(0, size, this.size);
    this.size = size;
  }
}

/** A whole number from 0 to `most`, both included. */
function upTo(most: number, random: () => number): number {
  return Math.min(most, Math.floor(random() * (most + 1)));
}
