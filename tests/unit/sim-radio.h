/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-radio.h"
#include "sim-device.h"

G_BEGIN_DECLS

/*
 * A radio in memory, for tests of the daemon without any bus: its thermometers are the simulator's,
 * and their time runs SIM_RADIO_SPEED times as fast as ours.
 */
#define SIM_RADIO_SPEED 20

#define SIM_TYPE_RADIO_MOCK (sim_radio_mock_get_type ())
G_DECLARE_FINAL_TYPE (SimRadioMock, sim_radio_mock, SIM, RADIO_MOCK, GObject)

/* @devices: text of a devices file */
SimRadioMock *sim_radio_new (const char *devices);
SimDevice *sim_radio_get_device (SimRadioMock *self, const char *address);
/* Names of adapters, "hci0" by default. */
void sim_radio_set_adapters (SimRadioMock *self, const char *const *names);
/* Delivers what every thermometer advertises now; @adapter hears @address, NULL: each and all. */
void sim_radio_advertise (SimRadioMock *self, const char *address, const char *adapter);
/* Number of connections that were made to @address. */
guint sim_radio_count_connects (SimRadioMock *self, const char *address);
/* The next connects are not answered (until cancelled). */
void sim_radio_set_deaf (SimRadioMock *self, gboolean deaf);
/* Most connections that were up at one time through one adapter, and through all. */
guint sim_radio_get_peak (SimRadioMock *self);
/* Connections that are up now. */
guint sim_radio_get_up (SimRadioMock *self);
/* The link of @address drops, as if the radio had lost it. */
void sim_radio_cut (SimRadioMock *self, const char *address);

G_END_DECLS
