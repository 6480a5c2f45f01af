import { spawn } from 'node:child_process';
import { readFileSync, realpathSync } from 'node:fs';
import { compiled } from './compiled.ts';
import type { DiskOperation } from './power-loss.ts';

/** One operation, and when it was: milliseconds of a clock that all processes share. */
export interface Recorded {
  readonly operation: DiskOperation;
  readonly begun: number;
  readonly ended: number;
}

/** What processes did to the files of a folder, in order. Paths begin at that folder: `/a.db`. */
export type Recording = readonly Recorded[];

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

/**
 * Runs a module in a process that is recorded, with all it starts. What it writes to the file that the environment variable
 * `DISK_RECORDER_NOTES` names gets a place in the recording, as a mark. The note `die` kills it there, between two operations; `die a.db-wal`
 * does so where it next syncs a file whose name ends like that, in place of the sync.
 */
export function record(file: string, below: string, program: string, args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, ['--unhandled-rejections=strict', program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      LD_PRELOAD: compiled('disk-recorder'),
      DISK_RECORDER_FILE: file,
      DISK_RECORDER_FOLDER: realpathSync(below),
      DISK_RECORDER_NOTES: `${file}.notes`,
      // Writes that the kernel is asked for in another way would not be seen.
      UV_USE_IO_URING: '0',
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, output });
    });
  });
}

// As in disk-recorder.c.
const HEADER_BYTES = 56;
const MAGIC = 0x43455244;
const KINDS = [
  undefined,
  'open',
  'openEmpty',
  'write',
  'truncate',
  'sync',
  'syncDirectory',
  'mkdir',
  'rmdir',
  'rename',
  'unlink',
  'note',
  'unseen',
] as const;

/** Reads what was recorded below a folder. */
export function readRecording(file: string, below: string): Recorded[] {
  const bytes = readFileSync(file);
  const root = realpathSync(below);
  const recording: Recorded[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length < at + HEADER_BYTES || bytes.readUInt32LE(at) !== MAGIC) {
      throw new Error(`${file} is no recording at byte ${at}`);
    }
    const kind = KINDS[bytes.readUInt32LE(at + 4)];
    const nameBytes = bytes.readUInt32LE(at + 8);
    const dataBytes = bytes.readUInt32LE(at + 12);
    const inode = Number(bytes.readBigUInt64LE(at + 16));
    const offset = Number(bytes.readBigUInt64LE(at + 24));
    const begun = Number(bytes.readBigUInt64LE(at + 32)) / 1e6;
    const ended = Number(bytes.readBigUInt64LE(at + 40)) / 1e6;
    at += HEADER_BYTES;
    const names = bytes.toString('utf8', at, at + nameBytes).split('\0');
    const [path = '', to = ''] = names.map((name) => name.slice(root.length) || '/');
    at += nameBytes;
    const data = bytes.subarray(at, at + dataBytes);
    at += dataBytes;
    recording.push({ operation: operationOf(kind, { inode, offset, path, to, data }), begun, ended });
  }
  return recording;
}

interface Fields {
  readonly inode: number;
  readonly offset: number;
  readonly path: string;
  readonly to: string;
  readonly data: Buffer;
}

function operationOf(kind: (typeof KINDS)[number], { inode, offset, path, to, data }: Fields): DiskOperation {
  switch (kind) {
    case 'open':
    case 'openEmpty':
      return { kind: 'open', path, inode, truncate: kind === 'openEmpty' };
    case 'write':
      return { kind, inode, offset, bytes: data };
    case 'truncate':
      return { kind, inode, size: offset };
    case 'sync':
      return { kind, inode };
    case 'syncDirectory':
    case 'mkdir':
    case 'rmdir':
    case 'unlink':
      return { kind, path };
    case 'rename':
      return { kind, from: path, to };
    case 'note':
      return { kind: 'mark', note: data.toString() };
    case 'unseen':
      throw new Error(`${path} is mapped to be written: what comes into it is not in the recording`);
    default:
      throw new Error('an operation of a kind that nobody knows');
  }
}
