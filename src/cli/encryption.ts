import type { EncryptionOptions } from '../base/encryption/index.ts';

/** What every command that opens a database says of its key. */
export const ENCRYPTION_HELP: string =
  '\nThe key of an encrypted database is taken from SLUICE_ENCRYPTION_KEY (base64) or SLUICE_ENCRYPTION_PASSPHRASE, and how it' +
  '\nencrypts from SLUICE_ENCRYPTION_ALGORITHM (default: aes-256-gcm).';

/** The key of the environment: on a command line everybody on the machine would see it. */
export function encryptionOfEnvironment(): EncryptionOptions | undefined {
  const of = (name: string) => process.env[`SLUICE_ENCRYPTION_${name}`] || undefined;
  const given = {
    key: of('KEY'),
    passphrase: of('PASSPHRASE'),
    algorithm: of('ALGORITHM') as EncryptionOptions['algorithm'],
  };
  return given.key === undefined && given.passphrase === undefined ? undefined : given;
}
