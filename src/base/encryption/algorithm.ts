import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** How values are encrypted. */
export type Algorithm = 'aes-256-gcm' | 'chacha20-poly1305' | 'fernet';

export const ALGORITHMS: readonly Algorithm[] = ['aes-256-gcm', 'chacha20-poly1305', 'fernet'];

/** Authenticated encryption with associated data: what `open` is given must be what `seal` was given, all of it. */
export interface Aead {
  /** What it returns begins with `head`, as it is. */
  seal(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array, associated: Uint8Array, head: Buffer): Buffer;
  /** `undefined` where the key, the nonce or the associated data is another one, or a bit has changed. */
  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Buffer | undefined;
}

export const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** The two that OpenSSL has: ciphertext, then the tag. */
export function nativeAead(cipher: 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' | 'chacha20-poly1305'): Aead {
  const options = { authTagLength: TAG_BYTES };
  // Node's types know the two families by different overloads, and take the same arguments for both.
  const name = cipher as 'aes-256-gcm';
  return {
    seal(key, nonce, plain, associated, head) {
      const sealing = createCipheriv(name, key, nonce, options);
      sealing.setAAD(associated);
      const text = sealing.update(plain);
      // Nothing comes out of it: these ciphers need no padding.
      sealing.final();
      return Buffer.concat([head, text, sealing.getAuthTag()]);
    },
    open(key, nonce, sealed, associated) {
      if (sealed.length < TAG_BYTES) return undefined;
      const opening = createDecipheriv(name, key, nonce, options);
      opening.setAAD(associated);
      opening.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
      const text = opening.update(sealed.subarray(0, sealed.length - TAG_BYTES));
      try {
        opening.final();
        return text;
      } catch {
        return undefined;
      }
    },
  };
}

const FERNET_VERSION = 0x80;
const IV_BYTES = 16;
const MAC_BYTES = 32;
const FERNET_HEAD_BYTES = 1 + 8 + IV_BYTES;

/**
 * A Fernet token (https://github.com/fernet/spec/blob/master/Spec.md) before its base64: version, time, IV, AES-128-CBC, and an
 * HMAC-SHA256 of all that. The first half of the key signs, the second encrypts.
 */
function sealFernet(key: Uint8Array, plain: Uint8Array): Buffer {
  const head = Buffer.alloc(FERNET_HEAD_BYTES);
  head[0] = FERNET_VERSION;
  head.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000)), 1);
  const iv = randomBytes(IV_BYTES);
  head.set(iv, 9);
  const cipher = createCipheriv('aes-128-cbc', key.subarray(16), iv);
  const signed = Buffer.concat([head, cipher.update(plain), cipher.final()]);
  return Buffer.concat([signed, macOf(key, signed)]);
}

/** The text of a token, whatever its age; `undefined` where it was not made with this key. */
export function openFernet(key: Uint8Array, token: Uint8Array): Buffer | undefined {
  if (token.length < FERNET_HEAD_BYTES + 16 + MAC_BYTES || token[0] !== FERNET_VERSION) return undefined;
  const signed = token.subarray(0, token.length - MAC_BYTES);
  if (!timingSafeEqual(macOf(key, signed), token.subarray(token.length - MAC_BYTES))) return undefined;
  const cipher = createDecipheriv('aes-128-cbc', key.subarray(16), signed.subarray(9, FERNET_HEAD_BYTES));
  try {
    return Buffer.concat([cipher.update(signed.subarray(FERNET_HEAD_BYTES)), cipher.final()]);
  } catch {
    return undefined;
  }
}

function macOf(key: Uint8Array, signed: Uint8Array): Buffer {
  return createHmac('sha256', key.subarray(0, 16)).update(signed).digest();
}

/** Fernet knows no associated data: its digest comes before the text, inside. The nonce is Fernet's own affair. */
const fernetAead: Aead = {
  seal: (key, nonce, plain, associated, head) =>
    Buffer.concat([head, sealFernet(key, Buffer.concat([digestOf(nonce, associated), plain]))]),
  open(key, nonce, sealed, associated) {
    const text = openFernet(key, sealed);
    const digest = digestOf(nonce, associated);
    if (text === undefined || text.length < digest.length) return undefined;
    return timingSafeEqual(text.subarray(0, digest.length), digest) ? text.subarray(digest.length) : undefined;
  },
};

function digestOf(nonce: Uint8Array, associated: Uint8Array): Buffer {
  return createHash('sha256').update(nonce).update(associated).digest();
}

export const AEADS: Readonly<Record<Algorithm, Aead>> = {
  'aes-256-gcm': nativeAead('aes-256-gcm'),
  'chacha20-poly1305': nativeAead('chacha20-poly1305'),
  fernet: fernetAead,
};
