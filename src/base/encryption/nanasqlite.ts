import { NONCE_BYTES, nativeAead, openFernet } from './algorithm.ts';
import type { KeyMaterial } from './key.ts';

const NOTHING = new Uint8Array();

const AES = { 16: 'aes-128-gcm', 24: 'aes-192-gcm', 32: 'aes-256-gcm' } as const;

/**
 * A value as NanaSQLite encrypts it, with the key as it is: nonce, ciphertext and tag, or a Fernet token in base64. It binds
 * them to nothing, so two rows may have changed places. `undefined` where it was not made with this key.
 */
export function openNanaSqlite({ algorithm, secret }: KeyMaterial, value: Uint8Array): Buffer | undefined {
  if (algorithm === 'fernet')
    return openFernet(secret, Buffer.from(Buffer.from(value).toString('latin1'), 'base64url'));
  if (value.length < NONCE_BYTES) return undefined;
  const aead =
    algorithm === 'chacha20-poly1305'
      ? nativeAead('chacha20-poly1305')
      : nativeAead(AES[secret.length as keyof typeof AES]);
  return aead.open(secret, value.subarray(0, NONCE_BYTES), value.subarray(NONCE_BYTES), NOTHING);
}
