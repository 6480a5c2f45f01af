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
  type ReadonlyGeneration,
  type SealedGeneration,
  TableTarget,
} from './generation.ts';
export { Health } from './health.ts';
export type { ReadonlyStage, Staged } from './stage.ts';
export type { Encoded } from './staged-entries.ts';
