import type { CopyFacts, CopyIdentity, CopyProgress } from '../../store.ts';
import type { FileId } from '../file-identity.ts';
import type { WireError } from '../rpc.ts';

/** What the process that copies is asked to do. */
export type CopyRequest =
  /** Copy what is committed in a database that is open. */
  | {
      readonly do: 'backup';
      readonly source: string;
      /** The file that is meant. */
      readonly database: FileId;
      readonly target: string;
      /** The name that the copy is made for. */
      readonly destination: string;
      readonly deadLetters: 'include' | 'refuse';
      /** Who may read the copy: as of what it replaces, or else as of the source. */
      readonly mode: number | undefined;
    }
  /** Copy a database that nobody has open. */
  | { readonly do: 'stage'; readonly source: string; readonly target: string }
  /** Make a copy another database. */
  | { readonly do: 'seal'; readonly target: string; readonly identity: CopyIdentity }
  /** Carry the WAL that a killed process has left behind into its database. */
  | { readonly do: 'settle'; readonly path: string };

/** What it says: how far it is, and then once what came of it. Nothing else crosses, and errors by value. */
export type CopyMessage =
  | { readonly progress: CopyProgress }
  | { readonly facts: CopyFacts | null }
  | { readonly error: WireError };
