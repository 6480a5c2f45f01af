export { FrameBuilder, Target } from './builder.ts';
export { frameProblem, singleWriteProblem } from './check.ts';
export {
  acceptedAtOf,
  copyFrame,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  type Frame,
  frameAt,
  Kind,
  readU64,
  SEALED_FRAME_MAGIC,
  type SqlValue,
  stampFrame,
  Tag,
  writeU64,
} from './layout.ts';
export { FrameReader, type TargetName } from './reader.ts';
export { type AsciiText, FrameScratch } from './scratch.ts';
export { isSealedFrame, openFrame, openWrite, sealFrame, sealWrite } from './sealed.ts';
