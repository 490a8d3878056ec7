/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

#include "sim-control.h"
#include "sim-peripheral.h"
#include "sim-schedule.h"

G_BEGIN_DECLS

/*
 * Inside of front 2:
 *   sim-peripheral-gatt.c    the application: services and characteristics that bluetoothd calls
 *   sim-peripheral-advert.c  the advertisement
 *   sim-peripheral.c         the device's outputs, the central, starting and ending
 */

#define BLUEZ_NAME "org.bluez"

typedef struct _Peripheral Peripheral;
typedef struct _PeripheralApp PeripheralApp;

typedef enum
{
  PERIPHERAL_OFF,
  PERIPHERAL_REGISTERING,
  PERIPHERAL_ON,
  PERIPHERAL_UNREGISTERING,
} PeripheralState;

struct _Peripheral
{
  GDBusConnection *connection;
  GMainLoop *loop;
  SimSchedule *schedule;
  SimControl *control;
  SimDevice *sim;
  SimTimer tick_timer;
  char *adapter_path;
  guint16 att_payload;
  char *central; /* path of the connected host, nullable */
  gboolean pumping;
  gboolean is_ready;
  int status;

  PeripheralApp *app; /* nullable */
  PeripheralState app_state;
  gboolean table_changed; /* the application has to be registered again, once nobody is connected */
  guint generation;

  PeripheralState advert_state;
  guint advert_object;
  SimTimer renew_timer;
  gint64 renew_at_ms;
  char *name; /* advertised, also the adapter's alias */
  guint16 uuid;
  GBytes *data;
};

/* --- sim-peripheral-gatt.c --- */

/* Exports the device's table below a path of its own. */
PeripheralApp *peripheral_app_new (Peripheral *self);
void peripheral_app_free (PeripheralApp *app);
const char *peripheral_app_get_path (PeripheralApp *app);
void peripheral_app_notify (PeripheralApp *app, guint16 channel, const guint8 *data, gsize len);
/* A new connection: nobody has subscribed. */
void peripheral_app_reset (PeripheralApp *app);

/* --- sim-peripheral-advert.c --- */

gboolean peripheral_advert_init (Peripheral *self, GError **error);
/* Starts, changes or stops the advertisement, as the device wants it now. */
void peripheral_advert_update (Peripheral *self);
/* Before the connection to the bus ends, and the advertisement with it; blocks for a second at
 * most. */
void peripheral_advert_settle (Peripheral *self);

/* --- sim-peripheral.c --- */

/* bluetoothd sometimes does not say that a host connected: any call of it says so. */
void peripheral_saw_central (Peripheral *self, const char *path);
/* Takes the device's outputs and its next deadline; after each call on it. */
void peripheral_pump (Peripheral *self);
/* Ends the program. */
void peripheral_fail (Peripheral *self, const char *what, const GError *error);
/* Nobody is connected and the application is registered. */
gboolean peripheral_may_advertise (Peripheral *self);
void peripheral_advertises (Peripheral *self);

G_END_DECLS
