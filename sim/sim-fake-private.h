/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

#include "sim-control.h"
#include "sim-fake-bluez.h"
#include "sim-schedule.h"

G_BEGIN_DECLS

/*
 * Inside of front 1, from below:
 *   sim-fake-peer.c     one thermometer on the air: its clock, its advertisements, its one link
 *   sim-fake-link.c     the connection: packets in both directions, at connection events if asked
 *   sim-fake-gatt.c     GattService1, GattCharacteristic1
 *   sim-fake-device.c   Device1: what one adapter knows of one thermometer
 *   sim-fake-adapter.c  Adapter1: discovery sessions and filters
 *   sim-fake-object.c   objects on the bus, ObjectManager, PropertiesChanged
 *   sim-fake-bluez.c    the service: bus connection, name, control lines
 */

#define FAKE_IFACE_ADAPTER  "org.bluez.Adapter1"
#define FAKE_IFACE_MONITORS "org.bluez.AdvertisementMonitorManager1"
#define FAKE_IFACE_DEVICE   "org.bluez.Device1"
#define FAKE_IFACE_SERVICE  "org.bluez.GattService1"
#define FAKE_IFACE_CHRC     "org.bluez.GattCharacteristic1"

/* ATT error codes that occur here (Core specification, volume 3, part F, 3.4.1.1). */
typedef enum
{
  FAKE_ATT_OK = 0,
  FAKE_ATT_INVALID_HANDLE = 0x01,
  FAKE_ATT_READ_NOT_PERMITTED = 0x02,
  FAKE_ATT_WRITE_NOT_PERMITTED = 0x03,
  FAKE_ATT_REQUEST_NOT_SUPPORTED = 0x06,
  FAKE_ATT_UNLIKELY = 0x0e, /* also what BlueZ makes of a lost link */
  FAKE_ATT_NO_ANSWER = -1,  /* not on the air: the request waits until the link goes */
} FakeAttError;

typedef struct _FakeBluez FakeBluez;
typedef struct _FakeAdapter FakeAdapter;
typedef struct _FakeDevice FakeDevice;
typedef struct _FakePeer FakePeer;
typedef struct _FakeLink FakeLink;
typedef struct _FakeService FakeService;
typedef struct _FakeChrc FakeChrc;
typedef struct _FakeObject FakeObject;

/* --- objects on the bus (sim-fake-object.c) --- */

/* Returns: (transfer floating) (nullable): the value; NULL: the object lacks this property now */
typedef GVariant *(*FakeGetFunc) (gpointer data, const char *property);

struct _FakeObject
{
  FakeBluez *bluez;
  char *path;
  const char *interface;
  FakeGetFunc get;
  gpointer data;
  guint registration;
};

typedef struct
{
  const char *interface;
  FakeGetFunc get;
  GDBusInterfaceVTable vtable;
} FakeClass;

/* Registers the object and, if @announce, signals InterfacesAdded. */
FakeObject *fake_object_new (FakeBluez *bluez, const FakeClass *klass, const char *path,
                             gpointer data, gboolean announce);
/* Signals InterfacesRemoved. */
void fake_object_free (FakeObject *object);
void fake_object_announce (FakeObject *object);
/* Signals PropertiesChanged: the values that the properties have now; absent ones as invalidated.
 */
void fake_object_changed (FakeObject *object, const char *property, ...) G_GNUC_NULL_TERMINATED;
/* For FakeClass vtables: @user_data is the FakeObject. */
GVariant *fake_object_get_property (GDBusConnection *connection, const char *sender,
                                    const char *path, const char *interface, const char *property,
                                    GError **error, gpointer user_data);
void fake_object_register_root (FakeBluez *bluez);
GDBusInterfaceInfo *fake_object_get_interface (const char *name);
/* Unknown objects get UnknownObject, as from bluetoothd, not GDBus's own error. */
guint fake_object_add_filter (FakeBluez *bluez);

/* Answers with org.bluez.Error.@name. */
void fake_error (GDBusMethodInvocation *invocation, const char *name, const char *message);
void fake_failed (GDBusMethodInvocation *invocation, const char *message);
void fake_att_error (GDBusMethodInvocation *invocation, FakeAttError code);

/* --- the service (sim-fake-bluez.c) --- */

typedef struct
{
  guint fail_connects; /* Connect() calls that will fail */
  char *fail_name;
  char *fail_message;
  gboolean no_acquire;
  gboolean silent_connected;
} FakeMischief;

struct _FakeBluez
{
  SimFakeBluezOptions options;
  SimSchedule *schedule;
  SimControl *control;
  GMainLoop *loop;
  GRand *rand;
  GPtrArray *peers;    /* of FakePeer */
  GPtrArray *adapters; /* of FakeAdapter; NULL entries: removed */
  FakeMischief mischief;

  GDBusConnection *connection; /* NULL while the service is "restarting" */
  GHashTable *objects;         /* path -> FakeObject */
  gpointer known_paths;        /* shared with the connection's thread */
  guint filter;
  guint name_watch;
  guint root;
  SimTimer restart;
  guint discovering; /* adapters that scan */
  int status;
};

/* --- adapters (sim-fake-adapter.c) --- */

struct _FakeAdapter
{
  FakeBluez *bluez;
  guint index;
  char *name; /* "hci0" */
  char *path;
  char *address;
  char *alias;
  gboolean powered;
  gboolean discoverable;
  GPtrArray *clients; /* of FakeClient */
  guint n_sessions;
  GPtrArray *monitors;     /* of FakeMonitor */
  guint monitors_id;       /* registration of the second interface */
  gboolean duplicate_data; /* wanted by a session */
  gboolean every_rssi;     /* a session has a filter */
  FakeObject *object;
};

FakeAdapter *fake_adapter_new (FakeBluez *bluez, guint index);
void fake_adapter_free (FakeAdapter *adapter);
void fake_adapter_set_powered (FakeAdapter *adapter, gboolean powered);
void fake_adapter_client_gone (FakeAdapter *adapter, const char *sender);
/* Scans for somebody, actively or not. */
gboolean fake_adapter_is_scanning (FakeAdapter *adapter);
/* After the sessions or the monitors have changed. @before: whether it scanned */
void fake_adapter_scanning_changed (FakeAdapter *adapter, gboolean before);
/* Would a scanning client hear this? */
gboolean fake_adapter_is_wanted (FakeAdapter *adapter, FakePeer *peer, const SimAdvert *advert);

/* --- passive scanning (sim-fake-monitor.c) --- */

void fake_monitors_init (FakeAdapter *adapter);
void fake_monitors_clear (FakeAdapter *adapter);
void fake_monitors_client_gone (FakeAdapter *adapter, const char *sender);
/* Does a monitor's pattern match? */
gboolean fake_monitors_match (FakeAdapter *adapter, const SimAdvert *advert);
/* Returns: (transfer floating): a{sv}, the manager's properties */
GVariant *fake_monitors_describe (void);

/* --- thermometers as an adapter knows them (sim-fake-device.c) --- */

struct _FakeDevice
{
  FakeAdapter *adapter;
  FakePeer *peer;
  FakeObject *object;
  char *name; /* nullable */
  gint16 rssi;
  gboolean has_rssi;
  GHashTable *service_data; /* UUID -> GBytes */
  gboolean connected;
  gboolean resolved;
  gboolean trusted;
  gboolean removing; /* RemoveDevice() waits for the link to drop */
  gint64 last_seen_ms;
  GDBusMethodInvocation *connecting; /* nullable */
  GPtrArray *disconnecting;          /* of GDBusMethodInvocation */
  SimTimer connect_timer;            /* gives up */
  SimTimer disconnect_timer;
  SimTimer resolve_timer;
  SimTimer expire_timer;
  GPtrArray *services; /* of FakeService; NULL: not discovered yet. Kept over disconnection. */
};

FakeDevice *fake_device_new (FakeAdapter *adapter, FakePeer *peer, const SimAdvert *advert);
void fake_device_free (FakeDevice *device);
/* A scanning client hears @advert of a known device. */
void fake_device_heard (FakeDevice *device, const SimAdvert *advert);
/* Scanning has stopped. */
void fake_device_forget_rssi (FakeDevice *device);
/* It advertises: the moment to connect, if somebody waits. */
void fake_device_try_connect (FakeDevice *device);
void fake_device_cancel_connect (FakeDevice *device, const char *message);
/* The link has gone; @device may be freed by this when its removal waited. */
void fake_device_link_down (FakeDevice *device);
/* Drops the link (after BlueZ's delay), then answers @invocation (transfer full). */
void fake_device_start_disconnect (FakeDevice *device, GDBusMethodInvocation *invocation);
void fake_device_client_gone (FakeDevice *device, const char *sender);
char *fake_device_dup_path (FakeAdapter *adapter, FakePeer *peer);

/* --- services (sim-fake-gatt.c) --- */

struct _FakeService
{
  FakeDevice *device;
  FakeObject *object;
  char *uuid;
  GPtrArray *chrcs; /* of FakeChrc */
};

struct _FakeChrc
{
  FakeService *service;
  FakeObject *object;
  char *uuid;
  guint16 handle; /* of the value */
  MiLinkFlags flags;
  GBytes *value;       /* last one seen; nullable */
  GPtrArray *sessions; /* bus names with StartNotify */
  gboolean notifying;
  GPtrArray *reads; /* of GDBusMethodInvocation that one ATT read will answer */
  GDBusMethodInvocation *write;
  GPtrArray *subscribing; /* of GDBusMethodInvocation: StartNotify, AcquireNotify */
  int write_fd;           /* our ends of the sockets, -1: not acquired */
  int notify_fd;
  GSource *write_source;
  GSource *notify_source;
};

/* Makes the objects of the device's table as it is now. */
void fake_gatt_discover (FakeDevice *device);
/* What was discovered is not where the thermometer has it any more. */
void fake_gatt_outdate (FakeDevice *device);
void fake_service_free (FakeService *service);
/* Subscriptions of clients that stayed are renewed. */
void fake_gatt_connected (FakeDevice *device);
void fake_gatt_disconnected (FakeDevice *device);
/* Takes what lies in the sockets, so that it goes out before what the caller sends next. */
void fake_gatt_drain (FakeDevice *device);
void fake_gatt_notify (FakeDevice *device, guint16 handle, const guint8 *data, gsize len);
void fake_gatt_client_gone (FakeDevice *device, const char *sender);
void fake_chrc_read_done (FakeChrc *chrc, FakeAttError code, GBytes *value);
void fake_chrc_write_done (FakeChrc *chrc, FakeAttError code);
void fake_chrc_subscribe_done (FakeChrc *chrc, FakeAttError code);

/* --- links (sim-fake-link.c) --- */

typedef enum
{
  FAKE_WRITE_COMMAND,
  FAKE_WRITE_REQUEST,
  FAKE_READ_REQUEST,
  FAKE_SUBSCRIBE_REQUEST, /* write to the client configuration */
} FakeOpKind;

/* One entry of the thermometer's attribute table as it is now. */
typedef struct
{
  guint16 handle;
  guint16 channel;
  MiLinkFlags flags;
} FakeAttribute;

FakeLink *fake_link_new (FakeDevice *device);
/* Waiting requests are answered with an error. */
void fake_link_free (FakeLink *link);
/* @data is copied if need be. @chrc gets the result of a request. */
void fake_link_send (FakeLink *link, FakeOpKind kind, FakeChrc *chrc, const guint8 *data,
                     gsize len);
/* The thermometer notifies, or ends the connection. */
void fake_link_notified (FakeLink *link, guint16 channel, const guint8 *data, gsize len);
void fake_link_hung_up (FakeLink *link);
void fake_link_table_changed (FakeLink *link);
/* A characteristic is going away: its requests get no answer. */
void fake_link_forget (FakeLink *link, FakeChrc *chrc);
/* How long the discovery of services takes. */
guint fake_link_resolve_ms (FakeLink *link, gboolean cached);
/* Returns: (transfer full): the table, with the handles that bluetoothd would see */
GArray *fake_link_read_table (SimDevice *sim);

/* --- thermometers on the air (sim-fake-peer.c) --- */

struct _FakePeer
{
  FakeBluez *bluez;
  SimDevice *sim;
  char *address;
  guint16 att_payload;
  GPtrArray *devices; /* by adapter index: FakeDevice, nullable */
  FakeDevice *linked; /* has the link, nullable */
  FakeLink *link;
  guint n_connecting; /* devices that wait for an advertisement */
  guint interval_ms;
  guint phase_ms;
  gboolean pumping;
  SimTimer advert_timer;
  SimTimer tick_timer;
};

FakePeer *fake_peer_new (FakeBluez *bluez, GKeyFile *config, const char *address, GError **error);
void fake_peer_free (FakePeer *peer);
/* Somebody started or stopped listening, or the device changed: (re)arms the next advertisement. */
void fake_peer_update_advert (FakePeer *peer);
/* Takes the device's outputs and its next deadline; after each call on @sim. */
void fake_peer_pump (FakePeer *peer);
gboolean fake_peer_connect (FakePeer *peer, FakeDevice *device);
/* Everybody who listens hears one more advertisement, with this service data. */
void fake_peer_forge (FakePeer *peer, guint16 uuid, const guint8 *data, gsize len);
/* The host, or the radio, drops the link. */
void fake_peer_drop_link (FakePeer *peer);

G_END_DECLS
