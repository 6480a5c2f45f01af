import type { EngineEvents } from '../engine/index.ts';
import type { FlushEvents } from '../flush/index.ts';

/**
 * The events of a {@link Database}. Listeners are called synchronously, in the middle of the work: they must be quick.
 * What one throws ends the process, as with any event emitter, but not the write that it was told of.
 */
export interface DatabaseEvents extends EngineEvents, FlushEvents {}

/** What one part of Sluice itself does at each event. */
export type EventHandlers = {
  readonly [Name in keyof DatabaseEvents]?: (...payload: DatabaseEvents[Name]) => void;
};
