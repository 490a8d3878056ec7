/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-bluez.h"
#include "mitherm-link.h"

G_BEGIN_DECLS

/* Shared by mitherm-bluez*.c only. */

#define BLUEZ_ADAPTER_IFACE "org.bluez.Adapter1"
#define BLUEZ_DEVICE_IFACE  "org.bluez.Device1"
#define BLUEZ_MONITOR_IFACE "org.bluez.AdvertisementMonitorManager1"
#define BLUEZ_CALL_LIMIT_MS 10000

typedef struct _MithermConnect MithermConnect;

typedef enum
{
  MITHERM_DISCOVERY_OFF,
  MITHERM_DISCOVERY_STARTING,
  MITHERM_DISCOVERY_ON,
  MITHERM_DISCOVERY_STOPPING,
} MithermDiscovery;

/* One adapter of bluetoothd: our discovery there, and whose turn it is to connect. */
typedef struct
{
  MithermBluez *bluez; /* borrowed */
  char *path;
  const char *name;    /* "hci0", within path */
  gboolean powered;    /* and ours to use */
  GCancellable *calls; /* cancelled when the adapter goes, or its power */

  MithermDiscovery discovery;
  guint failures;
  guint retry_id;
  guint watch_id; /* bluetoothd says that it does not discover, though we asked for it */

  gint64 full_until_us; /* discover without a rest until then, monotonic */
  guint duty_id;
  gboolean resting;

  gboolean monitor_offered; /* bluetoothd can scan passively for us */
  MithermDiscovery monitor;
  guint monitor_ids[2]; /* our objects that describe it */

  gboolean scan;  /* a connect looks for its device: discover in any case */
  gboolean quiet; /* a connect needs the radio: do not discover */
  guint links;    /* connections of ours, open or dropping */
  guint dropping;
  MithermConnect *current;
  GQueue waiting; /* of MithermConnect */
} MithermAdapter;

/* One Device1 object of bluetoothd. */
typedef struct
{
  char *path;
  char *name; /* nullable */
  MithermAdapter *adapter;
  GVariant *service_data; /* as last signalled, NULL: none yet */
  gint64 seen_us;         /* monotonic time of the last advertisement, 0: none yet */
  guint id;               /* never used again, unlike the path */
  gint16 rssi;
  char address[18];
  guint8 random : 1;
  guint8 paired : 1;
  guint8 trusted : 1;
  guint8 connected : 1;
  guint8 resolved : 1;
} MithermPeer;

struct _MithermBluez
{
  GObject parent_instance;

  GDBusConnection *bus;
  char **allowed; /* names of adapters, NULL: all */
  guint name_watch;
  char *owner; /* unique name of bluetoothd, NULL: not running */
  guint subscriptions[4];
  GCancellable *calls; /* cancelled when bluetoothd goes */
  guint retry_id;
  GPtrArray *adapters; /* of MithermAdapter */
  GHashTable *peers;   /* path -> MithermPeer */
  GHashTable *links;   /* path -> MithermLink, borrowed */
  GHashTable *stale;   /* addresses whose cached services are to go as soon as they are back */
  GPtrArray *connects; /* of MithermConnect */
  GPtrArray *settles;  /* of GTask */
  guint next_id;
  gboolean discovery_wanted;
  MithermDiscoverySettings settings;

  MithermAdvertFunc advert;
  MithermRadioChangedFunc changed;
  gpointer user_data;
};

/* mitherm-bluez.c */
MithermPeer *mitherm_bluez_find_peer (MithermBluez *self, const char *path);
/* Returns: (transfer full): the object path of @address at @adapter */
char *mitherm_bluez_peer_path (MithermAdapter *adapter, const char *address);
void mitherm_bluez_peer_update (MithermBluez *self, MithermPeer *peer, GVariant *properties,
                                gboolean fresh);
void mitherm_bluez_changed (MithermBluez *self);
/* Returns: (transfer full): a link that the radio keeps an eye on */
MithermLink *mitherm_bluez_add_link (MithermBluez *self, MithermAdapter *adapter, const char *path,
                                     GPtrArray *characteristics);

/* mitherm-bluez-discovery.c */

/* Starts or stops our discovery as wanted now; call it after every change. */
void mitherm_discovery_update (MithermAdapter *adapter);
/* Whether no scan of ours runs, active or passive. */
gboolean mitherm_discovery_is_quiet (MithermAdapter *adapter);
/* The adapter has lost its power or has gone: nothing runs any more. */
void mitherm_discovery_reset (MithermAdapter *adapter);
/* bluetoothd's property Discovering has changed. */
void mitherm_discovery_observe (MithermAdapter *adapter, gboolean discovering);

/* Discovery is wanted from now on: without a rest for a while. */
void mitherm_discovery_begin (MithermAdapter *adapter);
/* Whether we listen, or rest between two turns. */
gboolean mitherm_discovery_is_listening (MithermAdapter *adapter);

/* mitherm-bluez-monitor.c */

/* Starts or stops passive scanning as wanted now. */
void mitherm_monitor_update (MithermAdapter *adapter);
/* The adapter has lost its power or has gone: replies will not come. */
void mitherm_monitor_reset (MithermAdapter *adapter);
void mitherm_monitor_unexport (MithermAdapter *adapter);

/* mitherm-bluez-connect.c */
void mitherm_connect_start (MithermBluez *self, const char *address, const char *adapter,
                            MithermConnectStepFunc step, gpointer step_data, GTask *task);
void mitherm_connect_unref (MithermConnect *self);
/* The adapter may be free: gives it to the next that waits for it. */
void mitherm_connect_next (MithermAdapter *adapter);
/* @peer was heard, connected, dropped or resolved. */
void mitherm_connect_on_peer (MithermPeer *peer, gboolean heard);
/* A scan of ours at @adapter has ended. */
void mitherm_connect_on_quiet (MithermAdapter *adapter);
/* An adapter lost its power or has gone. */
void mitherm_connect_on_adapter_gone (MithermAdapter *adapter);
/* An adapter has become usable. */
void mitherm_connect_on_adapter_usable (MithermBluez *self);

G_END_DECLS
