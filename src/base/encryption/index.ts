export type { Algorithm } from './algorithm.ts';
export {
  type EncryptionKey,
  type EncryptionOptions,
  type KeyDerivation,
  type KeyMaterial,
  KeySource,
  newDerivation,
  readEncryption,
  readKey,
  showKind,
} from './key.ts';
export { Keyring, keyIdOf, notEncrypted } from './keyring.ts';
export { openNanaSqlite } from './nanasqlite.ts';
export { type Accepts, type Secrets, ValueCipher } from './value-cipher.ts';
