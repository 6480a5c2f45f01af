/**
 * The disk as the log sees it: the few operations whose order and failure decide what survives a crash, and nothing
 * else. The real one is `node-file-system.ts`; a simulated one can be crueller.
 */
export interface FileSystem {
  /** Opens a file that must not exist yet, for writing. */
  create(path: string): Promise<LogFile>;
  /** Opens a file that exists, for cutting its tail off. */
  openExisting(path: string): Promise<LogFile>;
  /** The whole content. */
  read(path: string): Promise<Uint8Array>;
  /** Writes a small file that nothing depends on. */
  writeNote(path: string, text: string): Promise<void>;
  /** The text of such a file, or `undefined` where there is none. */
  readNote(path: string): Promise<string | undefined>;
  copy(from: string, to: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** The names in a folder; none where there is no such folder. */
  list(path: string): Promise<string[]>;
  /** Makes a folder, if it is not there, in one that is. */
  makeDirectory(path: string): Promise<void>;
  removeDirectory(path: string): Promise<void>;
  /** fsync of a folder: makes created, renamed and unlinked names durable. */
  syncDirectory(path: string): Promise<void>;
}

/** One open file of the log. */
export interface LogFile {
  /** Hands bytes to the operating system. May write fewer than asked: the return value says how many. */
  write(bytes: Uint8Array, position: number): Promise<number>;
  /** fdatasync: resolves when all that was written is on the disk. */
  datasync(): Promise<void>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}
