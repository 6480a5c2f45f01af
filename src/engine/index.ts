export type { AdmissionOptions, RefusalReason } from './admission.ts';
export {
  bytesOfGroup,
  bytesOfPut,
  bytesOfValues,
  type Durability,
  Engine,
  type EngineEnvironment,
  type EngineOptions,
  type GroupMember,
  type KeyMember,
  type Outcome,
} from './engine.ts';
export type { Emit, EngineEvents, State } from './events.ts';
export {
  type Encoded,
  type ReadonlyGeneration,
  type ReadonlyStage,
  type SealedGeneration,
  type Staged,
  TableTarget,
} from './generation.ts';
export { Health } from './health.ts';
