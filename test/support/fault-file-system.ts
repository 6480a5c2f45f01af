import { basename } from 'node:path';
import type { FileSystem, LogFile } from '../../dist/base/file-system.js';
import { nodeFileSystem } from '../../dist/base/node-file-system.js';

/** The operations that can be made to fail, and that are written down. */
export type Operation =
  | 'create'
  | 'openExisting'
  | 'read'
  | 'write'
  | 'datasync'
  | 'truncate'
  | 'close'
  | 'writeNote'
  | 'rename'
  | 'copy'
  | 'unlink'
  | 'list'
  | 'makeDirectory'
  | 'syncDirectory';

/** One operation as it was asked for. */
export interface Recorded {
  readonly operation: Operation;
  readonly file: string;
  /** Bytes that were asked to be written. */
  readonly bytes: number;
  readonly failed: boolean;
}

interface Fault {
  readonly operation: Operation;
  readonly code: string;
  /** Fails only on files of which this holds. */
  readonly file: RegExp;
  /** How many matching operations are let through first. */
  skip: number;
  /** How many fail. */
  times: number;
}

/** The real disk, with a record of what was asked of it, faults that are switched on and off, and short writes. */
export class FaultFileSystem implements FileSystem {
  readonly recorded: Recorded[] = [];
  /** How many operations have failed on purpose, by name. */
  readonly hits: Map<Operation, number> = new Map();
  /** Writes take at most this many bytes at a time. */
  writeLimit = Number.POSITIVE_INFINITY;
  /** Runs before each operation that is let through: a test can hold it there. */
  before: (operation: Operation, file: string) => Promise<void> | void = () => {};
  #faults: Fault[] = [];

  /** Makes operations fail with `code`: after `skip` more of them, `times` times, for ever if not said. */
  fail(
    operation: Operation,
    code: string,
    {
      skip = 0,
      times = Number.POSITIVE_INFINITY,
      file = /(?:)/,
    }: { skip?: number; times?: number; file?: RegExp } = {},
  ): void {
    this.#faults.push({ operation, code, skip, times, file });
  }

  /** The disk is well again. */
  heal(): void {
    this.#faults = [];
    this.writeLimit = Number.POSITIVE_INFINITY;
  }

  count(operation: Operation, file: RegExp = /\.log$/): number {
    return this.recorded.filter((one) => one.operation === operation && !one.failed && file.test(one.file)).length;
  }

  hit(operation: Operation): number {
    return this.hits.get(operation) ?? 0;
  }

  async create(path: string): Promise<LogFile> {
    return this.#wrap(path, await this.#run('create', path, () => nodeFileSystem.create(path)));
  }

  async openExisting(path: string): Promise<LogFile> {
    return this.#wrap(path, await this.#run('openExisting', path, () => nodeFileSystem.openExisting(path)));
  }

  read(path: string): Promise<Uint8Array> {
    return this.#run('read', path, () => nodeFileSystem.read(path));
  }

  writeNote(path: string, text: string): Promise<void> {
    return this.#run('writeNote', path, () => nodeFileSystem.writeNote(path, text));
  }

  readNote(path: string): Promise<string | undefined> {
    return nodeFileSystem.readNote(path);
  }

  copy(from: string, to: string): Promise<void> {
    return this.#run('copy', from, () => nodeFileSystem.copy(from, to));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#run('rename', from, () => nodeFileSystem.rename(from, to));
  }

  unlink(path: string): Promise<void> {
    return this.#run('unlink', path, () => nodeFileSystem.unlink(path));
  }

  list(path: string): Promise<string[]> {
    return this.#run('list', path, () => nodeFileSystem.list(path));
  }

  makeDirectory(path: string): Promise<void> {
    return this.#run('makeDirectory', path, () => nodeFileSystem.makeDirectory(path));
  }

  removeDirectory(path: string): Promise<void> {
    return nodeFileSystem.removeDirectory(path);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#run('syncDirectory', path, () => nodeFileSystem.syncDirectory(path));
  }

  #wrap(path: string, file: LogFile): LogFile {
    return {
      write: (bytes, position) =>
        this.#run(
          'write',
          path,
          () => file.write(bytes.length > this.writeLimit ? bytes.subarray(0, this.writeLimit) : bytes, position),
          bytes.length,
        ),
      datasync: () => this.#run('datasync', path, () => file.datasync()),
      truncate: (length) => this.#run('truncate', path, () => file.truncate(length)),
      close: () => this.#run('close', path, () => file.close()),
    };
  }

  async #run<T>(operation: Operation, path: string, perform: () => Promise<T>, bytes = 0): Promise<T> {
    const file = basename(path);
    const fault = this.#due(operation, file);
    if (fault === undefined) {
      await this.before(operation, file);
      const done = await perform();
      this.recorded.push({ operation, file, bytes, failed: false });
      return done;
    }
    this.recorded.push({ operation, file, bytes, failed: true });
    this.hits.set(operation, this.hit(operation) + 1);
    throw Object.assign(new Error(`${fault.code}: made to fail, ${operation} '${file}'`), { code: fault.code });
  }

  #due(operation: Operation, file: string): Fault | undefined {
    for (const fault of this.#faults) {
      if (fault.operation !== operation || !fault.file.test(file) || fault.times <= 0) continue;
      if (fault.skip > 0) {
        fault.skip--;
        continue;
      }
      fault.times--;
      return fault;
    }
    return undefined;
  }
}
